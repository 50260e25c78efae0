// Where the relay is: the URL given by the user and the socket addresses behind it.

import Glibc

/// A `ws://HOST:PORT` or `wss://HOST:PORT` URL.
struct Endpoint {
    /// As the Host header field wants it.
    let authority: String
    let host: String
    let port: UInt16
    /// In the resolver's order; never empty.
    let addresses: [SocketAddress]
    /// Nil for `ws://`.
    let tls: ClientTLS?

    init(url: String, trust: TrustOptions) throws(UsageError) {
        let isSecure = url.hasPrefix("wss://")
        guard isSecure || url.hasPrefix("ws://") else {
            throw UsageError("--url \(url): expected ws://HOST:PORT or wss://HOST:PORT, as ws://localhost:8443")
        }
        guard isSecure || (trust.ca == nil && !trust.insecure) else {
            throw UsageError("--url \(url): --ca and --insecure are for wss://")
        }
        var rest = url.dropFirst(isSecure ? "wss://".count : "ws://".count)
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        if rest.hasSuffix("/ws") { rest = rest.dropLast(3) }
        guard !rest.contains("/"), !rest.contains("?"), !rest.contains("@") else {
            throw UsageError("--url \(url): expected HOST:PORT without a path; relay-load adds the paths itself")
        }
        var host = rest
        var port: UInt16? = isSecure ? 443 : 80
        let afterBracket = rest.lastIndex(of: "]").map { rest.index(after: $0) } ?? rest.startIndex
        if let colon = rest[afterBracket...].lastIndex(of: ":") {
            host = rest[..<colon]
            port = UInt16(rest[rest.index(after: colon)...])
        }
        if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
        guard let port, port > 0, !host.isEmpty else {
            throw UsageError("--url \(url): expected HOST:PORT with a port from 1 to 65535")
        }
        authority = String(rest)
        self.host = String(host)
        self.port = port
        tls = isSecure ? try ClientTLS(trust) : nil
        addresses = try SocketAddress.resolve(self.host, port)
    }

    /// Whether the relay is on this machine, reached over 127.0.0.0/8: then a connection may choose its source address.
    var isLoopback: Bool { addresses[0].isIPv4Loopback }
}

/// An IPv4 or IPv6 address with a port, in the kernel's form.
struct SocketAddress {
    let family: Int32
    let bytes: [UInt8]

    static func resolve(_ host: String, _ port: UInt16) throws(UsageError) -> [SocketAddress] {
        var hints = unsafe addrinfo()
        unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        unsafe hints.ai_flags = AI_NUMERICSERV
        var list: UnsafeMutablePointer<addrinfo>?
        let status = unsafe getaddrinfo(host, "\(port)", &hints, &list)
        guard status == 0 else {
            throw UsageError("--url: can't resolve \(host): \(unsafe String(cString: gai_strerror(status)))")
        }
        defer { if let list = unsafe list { unsafe freeaddrinfo(list) } }
        var found: [SocketAddress] = []
        var next = unsafe list
        while let entry = unsafe next {
            if let address = unsafe entry.pointee.ai_addr {
                let length = Int(unsafe entry.pointee.ai_addrlen)
                // The resolver says how many bytes the address has.
                let bytes = unsafe Array(UnsafeRawBufferPointer(start: address, count: length))
                found.append(SocketAddress(family: unsafe entry.pointee.ai_family, bytes: bytes))
            }
            unsafe next = entry.pointee.ai_next
        }
        guard !found.isEmpty else { throw UsageError("--url: \(host) has no address") }
        return found
    }

    /// 127.0.x.y with any port.
    static func loopback(_ index: Int) -> SocketAddress {
        var bytes = [UInt8](repeating: 0, count: MemoryLayout<sockaddr_in>.size)
        let family = UInt16(AF_INET)
        bytes[0] = UInt8(truncatingIfNeeded: family)
        bytes[1] = UInt8(truncatingIfNeeded: family >> 8)
        bytes[4] = 127
        bytes[6] = UInt8(truncatingIfNeeded: index / 250)
        bytes[7] = UInt8(2 + index % 250)
        return SocketAddress(family: Int32(AF_INET), bytes: bytes)
    }

    /// The first byte of an IPv4 address is the fifth of `sockaddr_in`.
    var isIPv4Loopback: Bool { family == Int32(AF_INET) && bytes[4] == 127 }

    func withPointer<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        var storage = sockaddr_storage()
        return unsafe withUnsafeMutableBytes(of: &storage) { raw in
            unsafe raw.copyBytes(from: bytes)
            // `sockaddr_storage` is laid out to hold any address.
            guard let base = raw.baseAddress else { preconditionFailure("a sockaddr_storage is not empty") }
            return unsafe body(
                UnsafePointer(base.assumingMemoryBound(to: sockaddr.self)), socklen_t(bytes.count))
        }
    }
}
