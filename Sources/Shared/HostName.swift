// The host of a URL, as browsers send it and operators list it. It is read into one spelling, so that two of them are
// the same host exactly if they are equal.

/// A host name in lower case.
package struct HostName: Hashable, Sendable, CustomStringConvertible {
    package let description: String

    /// 1 to 253 letters, digits, "-", "_" and ".": what DNS carries, and no more.
    package init?(utf8 bytes: Span<UInt8>) {
        guard (1...Limits.hostNameBytesMax).contains(bytes.count) else { return nil }
        var name: [UInt8] = []
        for index in bytes.indices {
            let octet = lowercased(bytes[index])
            guard isNameCharacter(octet) else { return nil }
            name.append(octet)
        }
        description = String(decoding: name, as: UTF8.self)
    }

    package init?(_ text: some StringProtocol) {
        self.init(utf8: Array(text.utf8).span)
    }
}

private func isNameCharacter(_ octet: UInt8) -> Bool {
    switch octet {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), Octet.zero...Octet.nine, Octet.minus, Octet.dot, UInt8(ascii: "_"): true
    default: false
    }
}

/// uri-host [ ":" port ] (RFC 9110, 7.2).
package struct HostAndPort: Hashable, Sendable, CustomStringConvertible {
    package enum Host: Hashable, Sendable {
        case address(Address)
        case name(HostName)
    }

    package let host: Host
    package let port: Int?

    /// An IPv6 address stands in brackets, and nothing else does.
    package init?(utf8 bytes: Span<UInt8>) {
        var end = bytes.count
        // The last colon, unless it stands within the brackets.
        var colon = bytes.count
        while colon > 0, bytes[colon - 1] != Octet.colon, bytes[colon - 1] != Octet.bracketClose { colon -= 1 }
        if colon > 0, bytes[colon - 1] == Octet.colon {
            guard let read = AddressText.decimal(bytes.extracting(colon..<bytes.count), max: 65535) else { return nil }
            port = read
            end = colon - 1
        } else {
            port = nil
        }
        let name = bytes.extracting(0..<end)
        if end >= 2, name[0] == Octet.bracketOpen, name[end - 1] == Octet.bracketClose {
            guard let address = AddressText.ipv6(name.extracting(1..<(end - 1))) else { return nil }
            host = .address(address)
        } else if let address = AddressText.ipv4(name) {
            host = .address(Address(ipv4: address))
        } else {
            guard let read = HostName(utf8: name) else { return nil }
            host = .name(read)
        }
    }

    private init(host: Host, port: Int?) {
        self.host = host
        self.port = port
    }

    func withoutPort(_ other: Int?) -> HostAndPort { port == other ? HostAndPort(host: host, port: nil) : self }

    package var description: String {
        let name =
            switch host {
            case .name(let name): name.description
            case .address(let address): address.isIPv4 ? address.description : "[\(address)]"
            }
        return name + (port.map { ":\($0)" } ?? "")
    }
}
