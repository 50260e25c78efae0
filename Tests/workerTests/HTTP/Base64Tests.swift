import CSodium
import Testing

@testable import worker

/// What is encoded, and which characters there are, is tested beside the tokens.
@Suite struct `Base64's reader` {
    /// libsodium is what read Base64 here before.
    @Test func `takes what libsodium takes, and nothing else`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        print("Base64: seed \(seed)")
        var random = SplitMix64(seed: seed)
        let alphabet = Array("AQgwZz09+/-_".utf8)
        for _ in 0..<20_000 {
            var text = (0..<Int.random(in: 0..<12, using: &random)).map { _ in
                alphabet.randomElement(using: &random) ?? 0
            }
            text +=
                ["", "", "=", "==", "===", "A=", "Q==", "\n", "\0"].randomElement(using: &random).map { Array($0.utf8) }
                ?? []
            #expect(
                decodeBase64(text[...], variant: .original) == libsodium(text, sodium_base64_VARIANT_ORIGINAL),
                "seed \(seed)")
            #expect(
                decodeBase64(text[...], variant: .urlWithoutPadding)
                    == libsodium(text, sodium_base64_VARIANT_URLSAFE_NO_PADDING), "seed \(seed)")
        }
    }

    private func libsodium(_ text: [UInt8], _ variant: Int32) -> [UInt8]? {
        let characters = text.map { CChar(bitPattern: $0) }
        var decoded = [UInt8](repeating: 0, count: text.count + 1)
        var count = 0
        let result = sodium_base642bin(
            &decoded, decoded.count, characters, characters.count, nil, &count, nil, variant)
        return result == 0 ? Array(decoded.prefix(count)) : nil
    }
}
