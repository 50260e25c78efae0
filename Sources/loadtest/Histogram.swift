// Latencies in buckets whose width grows with their value: 64 to each power of two, so a percentile is off by at most 1.6 %.

struct Histogram {
    private static let subBits = 6
    private var counts = [UInt64](repeating: 0, count: (64 - 6 + 1) << 6)
    private(set) var total: UInt64 = 0
    private(set) var maximum: UInt64 = 0

    mutating func record(_ value: UInt64) {
        counts[Self.bucket(value)] += 1
        total += 1
        if value > maximum { maximum = value }
    }

    private static func bucket(_ value: UInt64) -> Int {
        guard value >= 1 << subBits else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let shift = exponent - subBits
        return (shift + 1) << subBits + Int(value >> UInt64(shift)) - 1 << subBits
    }

    /// The highest value of a bucket.
    private static func ceiling(_ bucket: Int) -> UInt64 {
        guard bucket >= 1 << subBits else { return UInt64(bucket) }
        let shift = bucket >> subBits - 1
        let low = UInt64(bucket & (1 << subBits - 1) + 1 << subBits) << UInt64(shift)
        return low + (1 << UInt64(shift)) - 1
    }

    /// The value that a share of all values does not exceed. 0 without values.
    func percentile(_ share: Double) -> UInt64 {
        let rank = max(1, UInt64((Double(total) * share).rounded(.up)))
        var seen: UInt64 = 0
        for (bucket, count) in counts.enumerated() where count > 0 {
            seen += count
            if seen >= rank { return min(Self.ceiling(bucket), maximum) }
        }
        return maximum
    }
}
