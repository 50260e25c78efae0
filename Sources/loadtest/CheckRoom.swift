// A room of the check, and the waiting that all rooms share.

import Glibc

/// A room, its host's key and who is in it.
final class CheckRoom {
    let index: Int
    let session: Session
    /// Host first. Those whose connection has ended are taken out, so that nobody waits for them.
    var members: [CheckMember] = []

    init(index: Int, id: String? = nil) {
        self.index = index
        session = Session(room: id ?? "check-" + Encoding.hex(Encoding.randomBytes(12)))
    }

    var id: String { session.room }
    var key: HostKey { session.key }

    func hostRequest() -> Request { session.hostRequest() }

    func guestRequest(peer: String) -> Request { session.guestRequest(peer: peer) }

    /// Sends a message as the frames given and tells everybody else to expect it.
    func say(_ payload: [UInt8], by sender: CheckMember, as frames: [Frame]) {
        expect(.exactly(payload), from: sender)
        sender.send(bytes: frames.flatMap { $0.encoded })
    }

    func say(_ payload: [UInt8], by sender: CheckMember, as opcode: Opcode = .binary) {
        say(payload, by: sender, as: [Frame(opcode: opcode, payload: payload)])
    }

    func expect(_ expected: Expected, from sender: CheckMember) {
        for member in members where member !== sender { member.expect(expected, from: sender.name) }
    }
}

/// Many connections in one loop.
struct CheckLoop {
    private var buffer = [UInt8](repeating: 0, count: 262_144)

    /// Reads and writes for all members until `done` or the deadline. False: the deadline came first.
    mutating func run(_ members: [CheckMember], until deadline: Deadline, done: () -> Bool) -> Bool {
        while !done() {
            var alive = members.filter { $0.ended == nil }
            if alive.isEmpty || deadline.hasPassed { return false }
            var entries = alive.map { member in
                let events = POLLIN | (member.wantsToWrite ? POLLOUT : 0)
                return pollfd(fd: member.transport.descriptor, events: Int16(events), revents: 0)
            }
            // Bounded, so that members who come or go by `done` are seen.
            let wait = min(deadline.pollMilliseconds, 100)
            guard unsafe poll(&entries, UInt(entries.count), wait) > 0 else { continue }
            for index in alive.indices where entries[index].revents != 0 {
                if entries[index].revents & Int16(POLLOUT) != 0 { alive[index].flush() }
                if entries[index].revents & ~Int16(POLLOUT) != 0 { alive[index].receive(&buffer) }
            }
            alive.removeAll()
        }
        return true
    }

    /// Until every member has all that it was promised.
    mutating func settle(_ members: [CheckMember], deadline: Deadline) {
        _ = run(members, until: deadline) {
            members.allSatisfy { $0.outstanding == 0 || $0.ended != nil }
        }
    }

    /// Until the relay has closed the member's connection.
    mutating func awaitEnd(_ members: [CheckMember], deadline: Deadline) {
        _ = run(members, until: deadline) { members.allSatisfy { $0.ended != nil } }
    }
}
