import Shared
import Testing

@Suite struct `Fixed limits` {
    @Test func `keep the relations between them`() {
        #expect(Limits.problems == [])
    }

    /// Changing one of these changes what clients see: wire-protocol.md.
    @Test func `are the wire protocol's where it names them`() {
        #expect(Limits.roomIDBytesMax == 256)
        #expect(Limits.peerIDBytesMax == 256)
        #expect(Limits.tokenBytesMax == 4096)
        #expect(Limits.requestHeadBytesMax == 16_384)
        #expect(Limits.burstFactor == 2)
        #expect(Limits.hostOverRoomMax == 4)
        #expect(Limits.voiceFramesWaitingMax == 64)
        #expect(Limits.requestSeconds == 10)
        #expect(Limits.silenceSeconds == 60)
        #expect(Limits.hostKeySurvivalNanoseconds == 60_000_000_000)
    }

    @Test func `hold the default configuration`() {
        Limits.check(Configuration())
    }
}
