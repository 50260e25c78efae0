/// The bucket of `key` among `buckets` by jump consistent hash (Lamping and Veach, 2014): even, without a table, and
/// when the count of buckets grows from n to n + 1 only one key in n + 1 moves.
package func jumpHash(_ key: UInt64, buckets: Int) -> Int {
    precondition(buckets > 0, "there is no bucket to choose")
    var state = key
    var bucket: Int64 = -1
    var next: Int64 = 0
    while next < Int64(buckets) {
        bucket = next
        state = state &* 2_862_933_555_777_941_757 &+ 1
        next = Int64(Double(bucket + 1) * (Double(1 << 31) / Double((state >> 33) + 1)))
    }
    return Int(bucket)
}
