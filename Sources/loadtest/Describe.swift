// Bytes as people read them in a failure.

enum Describe {
    /// The first bytes, as text where they are printable ASCII.
    static func bytes(_ bytes: some Collection<UInt8>, limit: Int = 100) -> String {
        var text = "\""
        for byte in bytes.prefix(limit) {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): text += "\\\(Character(Unicode.Scalar(byte)))"
            case 0x20...0x7E: text.unicodeScalars.append(Unicode.Scalar(byte))
            default: text += "\\x" + Encoding.hex([byte])
            }
        }
        text += "\""
        return bytes.count > limit ? text + "... (\(bytes.count) bytes)" : text
    }
}
