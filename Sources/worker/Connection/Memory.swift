// What connections hold in memory, and what gives way when it is too much: a backlog that a slow client leaves waiting, a message
// that a client begins and does not finish. Each has a bound of its own; this one is over all of a worker's connections.

import Logging
import Shared

extension Worker {
    /// Brings the sum up to date with a connection whose queues have changed.
    mutating func account(_ slot: UInt32) {
        let held =
            connections[slot].outbox.backlogCapacity + connections[slot].message.capacity
            + connections[slot].sealed.capacity
        heldBytes += held - connections[slot].heldBytes
        connections[slot].heldBytes = held
    }

    /// Closes the connections that hold most until the sum is within its bound.
    mutating func relieveMemory() {
        let max = Limits.heldBytesMax(configuration)
        while heldBytes > max {
            var largest: UInt32?
            var held = 0
            for slot in connections.slots
            where connections.isOccupied(slot) && connections[slot].phase == .open
                && !connections[slot].isFrozen
            {
                if connections[slot].heldBytes > held { (largest, held) = (slot, connections[slot].heldBytes) }
            }
            guard let largest else { return }
            if let suppressed = memoryLogRate.admit(nowNanoseconds: now) {
                logger.warning(
                    "too much waits for slow clients: closing the slowest",
                    metadata: ["bytes": "\(heldBytes)", "max": "\(max)", "suppressed": "\(suppressed)"])
            }
            close(largest, .memory)
        }
    }
}
