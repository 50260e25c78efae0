import Testing

@testable import Shared

@Suite struct `Histograms` {
    @Test func `have bounds that grow`() {
        #expect(zip(Histogram.bounds, Histogram.bounds.dropFirst()).allSatisfy { $0 < $1 })
        #expect(Histogram.allCases.map(\.rawValue) == Array(Histogram.allCases.indices))
    }

    @Test func `count a duration in the first bucket whose bound it does not pass`() {
        #expect(Histogram.bucket(of: 0) == 0)
        for (index, bound) in Histogram.bounds.enumerated() {
            #expect(Histogram.bucket(of: bound - 1) == index)
            #expect(Histogram.bucket(of: bound) == index)
            #expect(Histogram.bucket(of: bound + 1) == index + 1)
        }
        #expect(Histogram.bucket(of: .max) == Histogram.bounds.count)
    }

    @Test func `stand apart in a page, add up over pages, and outlive a process`() throws {
        let file = try SharedMemory.makeFile()
        let memory = try SharedMemory.create(in: file)
        let page = memory.page(0)
        for (index, histogram) in Histogram.allCases.enumerated() {
            page.record(UInt64(index) * 1_000_000, count: 2, in: histogram)
            page.record(6_000_000_000, in: histogram)
        }
        page.zeroGauges()
        for counter in Counter.allCases { #expect(page[counter] == 0) }
        for (index, histogram) in Histogram.allCases.enumerated() {
            var expected = HistogramCounts()
            expected.buckets[Histogram.bucket(of: UInt64(index) * 1_000_000)] = 2
            expected.buckets[Histogram.bounds.count] = 1
            expected.sum = UInt64(index) * 2_000_000 + 6_000_000_000
            #expect(page[histogram] == expected)
            var twice = page[histogram]
            twice += page[histogram]
            #expect(twice.sum == 2 * expected.sum)
            #expect(twice.buckets == expected.buckets.map { 2 * $0 })
        }
    }
}
