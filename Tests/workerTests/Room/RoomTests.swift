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
                if let moved = room.remove(at: place) { places[moved] = place }
            }
            let members = room.members
            #expect(Set(members) == Set(places.keys), "seed \(seed), round \(round)")
            #expect(members.count == places.count, "seed \(seed), round \(round)")
            let isRight = places.allSatisfy { members[Int($1)] == $0 }
            #expect(isRight, "seed \(seed), round \(round)")
        }
    }

    @Test func `moves nobody when the last to come leaves`() {
        var room = Room(id: [1], hostKey: [2], share: 0, source: 0, now: 3)
        let places = [room.add(7), room.add(8)]
        #expect(places == [0, 1])
        let last = room.remove(at: 1)
        #expect(last == nil)
        let only = room.remove(at: 0)
        #expect(only == nil)
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
