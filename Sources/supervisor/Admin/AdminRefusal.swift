// Which requests RELAY_METRICS_ADDR answers. A web page in an operator's browser reaches whatever the operator does,
// and may give its own host name the relay's address (DNS rebinding) to read what is said there: then it has a name as
// Host, and no page can have an address or localhost. A browser that asks for another page's sake adds an Origin, and
// no scraper does.

import Shared

/// Why a request at RELAY_METRICS_ADDR is refused.
enum AdminRefusal: String, CaseIterable {
    /// Its Host is a name that nobody has allowed.
    case host
    /// A web page sends it.
    case origin

    /// - Parameter names: RELAY_METRICS_HOSTS.
    /// - Returns: nil if the request may be answered.
    init?(_ admin: AdminRequest, names: [HostName]) {
        // The Unix socket is no browser's.
        guard !admin.isLocal else { return nil }
        if admin.request.origin != .absent {
            self = .origin
        } else if let host = admin.host, !Self.isAllowed(host, names) {
            self = .host
        } else {
            // HTTP/1.0 may lack Host; no browser speaks it.
            return nil
        }
    }

    private static func isAllowed(_ host: [UInt8], _ names: [HostName]) -> Bool {
        switch HostAndPort(utf8: host.span)?.host {
        case .address: true
        case .name(let name): name.description == "localhost" || names.contains(name)
        case nil: false
        }
    }

    var answer: AdminAnswer {
        switch self {
        case .host:
            .text(
                .forbidden,
                "this name is not known here: ask by IP address or localhost, or add the name to RELAY_METRICS_HOSTS\n")
        case .origin: .text(.forbidden, "web pages are not answered here: the request has an Origin\n")
        }
    }
}
