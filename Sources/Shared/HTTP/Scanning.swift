// Octets looked for eight at a time. Most of a request's head is long runs in which nothing is found, a token above all:
// looking at them one by one was the larger part of what reading a head costs.

/// An octet in all eight places of a word.
private func repeated(_ octet: UInt8) -> UInt64 {
    UInt64(octet) &* 0x0101_0101_0101_0101
}

/// Marks octets of a word that are below a limit of at most 0x80, each by its top bit. The lowest mark is right: an octet
/// above it may be marked wrongly, because subtracting borrows.
@inline(__always)
private func marks(below limit: UInt8, in word: UInt64) -> UInt64 {
    (word &- repeated(limit)) & ~word & repeated(0x80)
}

/// Marks octets of a word that are this one, in the same way.
@inline(__always)
private func marks(of octet: UInt8, in word: UInt64) -> UInt64 {
    marks(below: 1, in: word ^ repeated(octet))
}

extension Span<UInt8> {
    /// Where an octet stands first within a range; the range's end if it does not.
    package func firstIndex(of octet: UInt8, in range: Range<Int>) -> Int {
        firstIndex(in: range) { marks(of: octet, in: $0) }
    }

    /// Where the first control character (C0 or DEL) stands within a range; the range's end if there is none.
    func firstControl(in range: Range<Int>) -> Int {
        firstIndex(in: range) { marks(below: 0x20, in: $0) | marks(of: 0x7F, in: $0) }
    }

    package func contains(_ octet: UInt8, in range: Range<Int>) -> Bool {
        firstIndex(of: octet, in: range) < range.upperBound
    }

    package func contains(_ octet: UInt8) -> Bool {
        contains(octet, in: indices)
    }

    /// `marks` sets bits in the octets of a word that are looked for; the lowest of them must be right.
    @inline(__always)
    private func firstIndex(in range: Range<Int>, marks: (UInt64) -> UInt64) -> Int {
        precondition(range.lowerBound >= 0 && range.upperBound <= count, "a range of these octets")
        var index = range.lowerBound
        while range.upperBound &- index >= 8 {
            // Eight octets from `index` on lie within the range, and that lies within the span.
            let word = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: index, as: UInt64.self)
            let found = marks(UInt64(littleEndian: word))
            if found != 0 { return index &+ found.trailingZeroBitCount / 8 }
            index &+= 8
        }
        while index < range.upperBound, marks(repeated(self[index])) == 0 { index &+= 1 }
        return index
    }
}

extension Span<UInt8> {
    /// Whether the octets are those of a text.
    package func equals(_ text: StaticString) -> Bool {
        equals(text) { $0 }
    }

    /// The same where ASCII letters may be in either case. The text is in lower case.
    package func equalsIgnoringCase(_ text: StaticString) -> Bool {
        equals(text, lowercased)
    }

    @inline(__always)
    private func equals(_ text: StaticString, _ transform: (UInt8) -> UInt8) -> Bool {
        guard count == text.utf8CodeUnitCount else { return false }
        return text.withUTF8Buffer { octets in
            for index in indices {
                // The text has as many octets.
                guard unsafe octets[index] == transform(self[index]) else { return false }
            }
            return true
        }
    }
}

extension [UInt8] {
    /// A copy. By way of a pointer, because an array that is filled octet by octet costs far more.
    package init(copying octets: Span<UInt8>) {
        // The array keeps its own octets, and not the pointer.
        self = unsafe octets.withUnsafeBufferPointer { unsafe Array($0) }
    }
}
