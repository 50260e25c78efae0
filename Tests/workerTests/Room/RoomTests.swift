import Testing

@testable import worker

@Suite struct `A room` {
    @Test func `knows its members by the places that it gave them, whoever leaves`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        var room = Room(id: [1], hostKey: [2], share: 0, source: 0, now: 3)
        // Each connection's own note of its place, as the worker keeps it.
        var places: [UInt32: UInt32] = [:]
        for round in 0..<2000 {
            let fills = (round / 100).isMultiple(of: 2)
            if places.isEmpty || Int.random(in: 0..<10, using: &random) < (fills ? 7 : 3) {
                let member = UInt32(round)
                places[member] = room.add(member)
            } else if let (member, place) = places.randomElement(using: &random) {
                places[member] = nil
                take(room.remove(at: place), room, &places)
            }
            let members = room.members
            #expect(Set(members) == Set(places.keys), "seed \(seed), round \(round)")
            #expect(members.count == places.count, "seed \(seed), round \(round)")
            let isRight = places.allSatisfy { members[Int($1)] == $0 }
            #expect(isRight, "seed \(seed), round \(round)")
        }
    }

    private func take(_ changed: [3 of UInt32], _ room: borrowing Room, _ places: inout [UInt32: UInt32]) {
        for index in changed.indices where changed[index] != Room.none {
            places[room.members[Int(changed[index])]] = changed[index]
        }
    }

    @Test func `leaves everybody in the part that they are in while it is sent to, whoever leaves`() {
        let seed = UInt64.random(in: 0...UInt64.max)
        var random = SplitMix64(seed: seed)
        for round in 0..<300 {
            var room = Room(id: [1], hostKey: [2], share: 0, source: 0, now: 3)
            var places: [UInt32: UInt32] = [:]
            for member in 0..<UInt32.random(in: 1...12, using: &random) { places[member] = room.add(member) }
            let next = Int.random(in: 0...places.count, using: &random)
            room.flush = PartFlush(batch: 0, next: next, end: Int.random(in: next...places.count, using: &random))
            for member in 100..<UInt32.random(in: 100...104, using: &random) { places[member] = room.add(member) }
            while !places.isEmpty {
                let before = parts(room)
                guard let (member, place) = places.randomElement(using: &random) else { break }
                places[member] = nil
                take(room.remove(at: place), room, &places)
                let after = parts(room)
                #expect(after == before.map { $0.subtracting([member]) }, "seed \(seed), round \(round)")
                let members = room.members
                let isRight = places.allSatisfy { members[Int($1)] == $0 } && members.count == places.count
                #expect(isRight, "seed \(seed), round \(round)")
            }
        }
    }

    /// Those who have been sent what was said, those who are still to be sent it, and those who have come later.
    private func parts(_ room: borrowing Room) -> [Set<UInt32>] {
        guard let part = room.flush else { return [] }
        let members = room.members
        return [members[..<part.next], members[part.next..<part.end], members[part.end...]].map { Set($0) }
    }

    @Test func `moves nobody when the last to come leaves`() {
        var room = Room(id: [1], hostKey: [2], share: 0, source: 0, now: 3)
        let places = [room.add(7), room.add(8)]
        #expect(places == [0, 1])
        for place in [1, 0] as [UInt32] {
            let changed = room.remove(at: place)
            #expect(changed.indices.allSatisfy { changed[$0] == Room.none })
        }
        let isEmpty = room.members.isEmpty
        #expect(isEmpty)
    }

    @Test func `is found by the bytes of its id, whatever text they look like`() {
        // é in one code point and in two are equal texts.
        let one = RoomID(bytes: Array("\u{E9}".utf8))
        let two = RoomID(bytes: Array("e\u{301}".utf8))
        #expect("\u{E9}" == "e\u{301}")
        #expect(one != two)
        #expect(one == RoomID(bytes: [0xC3, 0xA9]))
    }
}
