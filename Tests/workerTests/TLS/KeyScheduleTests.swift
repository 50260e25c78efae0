import Testing

@testable import worker

/// Bytes from hexadecimal digits.
func hex(_ text: String) -> [UInt8] {
    let digits = text.compactMap(\.hexDigitValue)
    precondition(digits.count.isMultiple(of: 2))
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// RFC 8448, section 3: "Simple 1-RTT Handshake", TLS_AES_128_GCM_SHA256.
enum RFC8448 {
    static let clientHandshakeSecret = hex("b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
    static let serverHandshakeSecret = hex("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
    static let clientSecret = hex("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
    static let serverSecret = hex("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
    /// Both sides send these 50 bytes.
    static let data = (0..<50).map { UInt8($0) }
    static let clientData = hex(
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2"
            + "977014bd1e3deae63aeebb21694915e4")
    static let serverData = hex(
        "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a2"
            + "1c0047c2abf332540dd032e167c2955d")
    static let clientClose = hex("1703030013c9872760655666b74d7ff1153efd6db6d0b0e3")
    static let serverClose = hex("1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9")
}

@Suite struct `TLS key schedule` {
    func expand(_ secret: [UInt8], _ label: StaticString, _ count: Int, _ suite: Suite = .aes128GCM) -> [UInt8] {
        var output = [UInt8](repeating: 0xEE, count: count)
        secret.withUnsafeBytes { secret in
            output.withUnsafeMutableBytes { KeySchedule.expandLabel(suite, secret, label, into: $0) }
        }
        return output
    }

    @Test func `makes the keys of RFC 8448`() {
        #expect(expand(RFC8448.serverHandshakeSecret, "key", 16) == hex("3fce516009c21727d0f2e4e86ee403bc"))
        #expect(expand(RFC8448.serverHandshakeSecret, "iv", 12) == hex("5d313eb2671276ee13000b30"))
        #expect(expand(RFC8448.clientHandshakeSecret, "key", 16) == hex("dbfaa693d1762c5b666af5d950258d01"))
        #expect(expand(RFC8448.clientHandshakeSecret, "iv", 12) == hex("5bd3c71b836e0b76bb73265f"))
        #expect(expand(RFC8448.serverSecret, "key", 16) == hex("9f02283b6c9c07efc26bb9f2ac92e356"))
        #expect(expand(RFC8448.serverSecret, "iv", 12) == hex("cf782b88dd83549aadf1e984"))
        #expect(expand(RFC8448.clientSecret, "key", 16) == hex("17422dda596ed5d9acd890e3c63f5051"))
        #expect(expand(RFC8448.clientSecret, "iv", 12) == hex("5b78923dee08579033e523d9"))
        #expect(
            expand(RFC8448.serverHandshakeSecret, "finished", 32)
                == hex("008d3b66f816ea559f96b537e885c31fc068bf492c652f01f288a1d8cdc19fc8"))
    }

    @Test(arguments: Suite.allCases, ["key", "iv", "traffic upd"])
    func `agrees with libcrypto's TLS13-KDF`(suite: Suite, label: String) {
        let secret = (0..<suite.hashBytes).map { UInt8(200 - $0) }
        for count in [1, 12, 16, 31, 32, suite.hashBytes] {
            let expected = OracleRecords.expand(suite, secret, label, count)
            switch label {
            case "key": #expect(expand(secret, "key", count, suite) == expected)
            case "iv": #expect(expand(secret, "iv", count, suite) == expected)
            default: #expect(expand(secret, "traffic upd", count, suite) == expected)
            }
        }
    }

    @Test(arguments: Suite.allCases)
    func `may write the next secret over the last`(suite: Suite) {
        var secret = (0..<suite.hashBytes).map { UInt8($0) }
        let expected = OracleRecords.expand(suite, secret, "traffic upd", suite.hashBytes)
        secret.withUnsafeMutableBytes {
            KeySchedule.expandLabel(suite, UnsafeRawBufferPointer($0), "traffic upd", into: $0)
        }
        #expect(secret == expected)
    }

    @Test func `leads to the records of RFC 8448`() throws {
        // Record 0 of the server was its NewSessionTicket.
        let loop = try SessionLoop(
            makeSession(
                .aes128GCM, clientSecret: RFC8448.clientSecret, serverSecret: RFC8448.serverSecret, writeSequence: 1))
        loop.run(RFC8448.clientData)
        #expect(loop.received == RFC8448.data)
        #expect(loop.seal(RFC8448.data) == RFC8448.serverData)
        loop.run(RFC8448.clientClose)
        #expect(loop.events == [.closed])
        loop.session.close()
        #expect(loop.pending() == RFC8448.serverClose)
    }
}
