import Shared
import Testing

/// The request that a text must be.
func head(_ text: String, sourceLocation: SourceLocation = #_sourceLocation) throws -> Request {
    let parsed = parseRequest(Array(text.utf8).span, searched: 0)
    guard case .head(let request) = parsed else {
        Issue.record("no request: \(parsed)", sourceLocation: sourceLocation)
        throw TestFailure()
    }
    return request
}

/// A request with these header lines behind its Host.
func get(_ target: String = "/", _ lines: String..., version: String = "HTTP/1.1") -> String {
    (["GET \(target) \(version)", "Host: relay.example"] + lines).joined(separator: "\r\n") + "\r\n\r\n"
}
