// Messages between supervisor and worker: what decodes must encode to something that decodes to the same.

@testable import Shared

@_cdecl("LLVMFuzzerInitialize")
func initialize(_: UnsafeMutableRawPointer?, _: UnsafeMutableRawPointer?) -> CInt {
    let key = ControlMessage.HostKey(
        room: Array("room".utf8), publicKey: [UInt8](repeating: 1, count: Limits.publicKeyBytes), expiry: 5)
    let launch = ControlMessage.Launch(
        index: 0, workers: 2, page: 0, placementKey: [UInt8](repeating: 4, count: Limits.placementKeyBytes),
        configuration: Configuration())
    let seeds: [ControlMessage] = [
        .launch(launch),
        .inboxes(first: 3), .hostKeys([key, key]), .start, .ready(.all),
        .drain(deadline: 9),
        .failed(reason: "why"), .checkCredentials(Sandbox()), .credentials(from: -1, until: 2),
        .makeCertificate(Sandbox(mode: .off, user: 1, group: .max)),
        .certificate([1], privateKey: [2, 3]),
    ]
    plantSeeds(seeds.map { $0.bytes })
    return 0
}

@_cdecl("LLVMFuzzerTestOneInput")
func test(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = Array(UnsafeBufferPointer(start: bytes, count: count))
    guard let message = try? ControlMessage(input) else { return 0 }
    guard let again = try? ControlMessage(message.bytes) else { fatalError("what was encoded does not decode") }
    precondition(again == message, "another message")
    return 0
}
