// What a room is told when somebody leaves it: the one message that the relay writes itself.

import Shared

/// A `session:leave` envelope. Clients compare neither spaces nor order, but older ones might: it is what the first
/// relay sent, byte for byte, wherever that was JSON.
func leaveNotice(peerID: [UInt8], unixMilliseconds: Int64) -> [UInt8] {
    var notice = Array(#"{"id":"","type":"session:leave","from":""#.utf8)
    appendEscapedJSON(peerID, to: &notice)
    notice.append(contentsOf: #"","ts":\#(unixMilliseconds),"nonce":0,"payload":null,"sig":null}"#.utf8)
    return notice
}

/// Appends the characters of a JSON string (RFC 8259, 7), without its quotes: escaped is only what must be, so that
/// nothing in the text can end the string or the line that it is in. What is not UTF-8 becomes U+FFFD.
func appendEscapedJSON(_ text: [UInt8], to json: inout [UInt8]) {
    for octet in String(decoding: text, as: UTF8.self).utf8 {
        switch octet {
        case Octet.quote, Octet.backslash: json += [Octet.backslash, octet]
        case Octet.lineFeed: json += [Octet.backslash, UInt8(ascii: "n")]
        case Octet.carriageReturn: json += [Octet.backslash, UInt8(ascii: "r")]
        case Octet.tab: json += [Octet.backslash, UInt8(ascii: "t")]
        case 0...0x1F:
            json += "\\u00".utf8
            json += [octet >> 4, octet & 0xF].map { $0 < 10 ? Octet.zero + $0 : UInt8(ascii: "a") + $0 - 10 }
        default: json.append(octet)
        }
    }
}
