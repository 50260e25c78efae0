// Timers of one-second grain: 256 buckets, each a list threaded through the values' own slots. Setting and clearing cost a
// few words each, whatever the number of timers; a timer farther off than the wheel turns waits in the farthest bucket
// and is set again when that comes up.

/// A value's place in a timer wheel.
struct TimerLinks {
    static let none = UInt32.max

    fileprivate var next = TimerLinks.none
    fileprivate var previous = TimerLinks.none
    fileprivate var bucket: UInt16 = UInt16.max
    /// Second in which the timer is due; 0 while it is not set.
    fileprivate(set) var due: UInt32 = 0

    var isSet: Bool { bucket != UInt16.max }
}

/// What can stand in a timer wheel.
protocol Timed: ~Copyable {
    var timer: TimerLinks { get set }
}

/// The wheel for the values of one slab.
struct TimerWheel<Element: Timed & ~Copyable>: ~Copyable {
    private static var buckets: UInt32 { 256 }

    private var heads = [UInt32](repeating: TimerLinks.none, count: 256)
    /// The second that was turned to last.
    private(set) var now: UInt32

    init(now: UInt32) {
        self.now = now
    }

    /// Sets the timer of `slot` to go off when the wheel turns to second `due`, in place of whatever it was set to.
    mutating func set(_ slot: UInt32, in slab: inout Slab<Element>, due: UInt32) {
        clear(slot, in: &slab)
        let due = max(due, now + 1)
        let bucket = min(due, now + Self.buckets - 1) % Self.buckets
        let first = heads[Int(bucket)]
        slab[slot].timer.bucket = UInt16(bucket)
        slab[slot].timer.due = due
        slab[slot].timer.next = first
        slab[slot].timer.previous = TimerLinks.none
        if first != TimerLinks.none { slab[first].timer.previous = slot }
        heads[Int(bucket)] = slot
    }

    mutating func clear(_ slot: UInt32, in slab: inout Slab<Element>) {
        let timer = slab[slot].timer
        guard timer.isSet else { return }
        if timer.previous == TimerLinks.none {
            heads[Int(timer.bucket)] = timer.next
        } else {
            slab[timer.previous].timer.next = timer.next
        }
        if timer.next != TimerLinks.none { slab[timer.next].timer.previous = timer.previous }
        slab[slot].timer = TimerLinks()
    }

    /// Turns the wheel towards second `now` as far as the next timer that is due, which is cleared.
    ///
    /// A value that is set from within a second has its timer in a later one, so a second comes to its end.
    ///
    /// - Returns: its slot; nil when the wheel has turned to `now` and none is left.
    mutating func next(upTo now: UInt32, in slab: inout Slab<Element>) -> UInt32? {
        while true {
            let slot = heads[Int(self.now % Self.buckets)]
            guard slot != TimerLinks.none else {
                guard self.now < now else { return nil }
                self.now += 1
                continue
            }
            let second = slab[slot].timer.due
            clear(slot, in: &slab)
            if second <= self.now { return slot }
            set(slot, in: &slab, due: second)
        }
    }

    /// Whether the wheel has turned to second `now` and no timer is left that is due.
    func isDone(upTo now: UInt32) -> Bool {
        self.now >= now && heads[Int(self.now % Self.buckets)] == TimerLinks.none
    }
}
