// Every fixed limit of the relay, with its unit in its name, why it is what it is, and what breaks when it changes.
// What an operator may set lies in Configuration; the ranges that bound it lie here. `Limits.problems` checks the
// relations between limits; a test holds it empty.

/// The relay's fixed limits.
package enum Limits {
    // MARK: - What a client may send

    /// A room id's bytes of UTF-8. The wire protocol's; clients with longer ids would be refused.
    package static let roomIDBytesMax = 256
    /// A peer id's bytes of UTF-8: the token's claim and the first message's `from`. The wire protocol's.
    package static let peerIDBytesMax = 256
    /// A token's bytes. The wire protocol's; real ones are below 1 KiB.
    package static let tokenBytesMax = 4096
    /// A request's head, up to and with its empty line. The wire protocol's. A join must fit: token and room id,
    /// percent-encoded, are at most 3 times their bytes.
    package static let requestHeadBytesMax = 16_384
    /// A server's frame header: 2 bytes and a 64-bit length; the relay masks nothing (RFC 6455, 5.2).
    package static let frameHeaderBytesMax = 10

    /// Bytes of a first data message in which its sender's id is looked for: the wire protocol's. Reading JSON costs up
    /// to 12 ns a byte, and nobody limits when the last bytes of many first messages come.
    package static let senderSearchBytesMax = 16_384

    // MARK: - Keys

    /// An Ed25519 public key (RFC 8032).
    package static let publicKeyBytes = 32
    /// A SipHash-2-4 key.
    package static let placementKeyBytes = 16

    // MARK: - A join

    /// A per-address burst, as a multiple of the rate: the wire protocol's.
    package static let burstFactor = 2
    /// The furthest ahead that an address's arrival time can be in the limiter's table: a burst at the lowest rate, and
    /// much more. A worker that writes another there neither stops the others nor shuts an address out for ever.
    package static let limiterDebtNanosecondsMax: UInt64 = 60_000_000_000
    /// Clients that a room may have over RELAY_MAX_CLIENTS_PER_ROOM where they are hosts: the wire protocol's. A host
    /// returns while its old connection is still dying.
    package static let hostOverRoomMax = 4
    /// Time that host keys outlive a dead worker: the wire protocol's. Shorter, and guests who reconnect before their
    /// host are refused; longer, and an abandoned room's id stays taken.
    package static let hostKeySurvivalNanoseconds: UInt64 = 60_000_000_000

    // MARK: - Shares by source

    /// What a /48 of IPv6 may have of rates, and of connections and rooms, as multiples of what an address may: a /64
    /// of it counts as one. An organization with some networks finds room; somebody who has a whole /48 to himself, as
    /// anybody can, is no more than so many addresses. A rate is used by few at the same moment, so it is the more
    /// generous one.
    package static let wideRateFactor = 16
    package static let wideCountFactor = 8
    /// Requests other than joins, and TLS handshakes, that an address may make, as a multiple of its joins: each costs
    /// a fraction of what a join leaves behind, a join over TLS takes one, and health checks of a whole fleet are below
    /// 100 a second.
    package static let requestRateFactor = 10
    /// Connections that have not joined a room, of RELAY_MAX_CONNECTIONS: the rest is for those in rooms alone, so that
    /// nobody who only connects can keep members out who come back. A relay has few of them at a time: a join takes a
    /// round trip or three.
    package static func unjoinedMax(connectionsMax: Int) -> Int { connectionsMax - connectionsMax / 10 }
    /// Connections that give their places to others in one accept of a turn: until the turn ends their descriptors are
    /// open beside those of the newcomers.
    package static let gaveWayPerTurnMax = 16
    /// For so long a connection keeps its place against newcomers from its own address, who are refused: those who are
    /// about to join would otherwise push each other out.
    package static let ownPlaceSeconds: UInt32 = 2

    // MARK: - One turn of a worker's loop

    /// Time for what comes in, over all sources of work (worker/Loop/TurnClock.swift). A voice frame waits for a turn
    /// that is under way and for its own: with more, voices of others stutter while somebody floods; with much less, a
    /// busy worker spends its time on waits and on batches of little.
    package static let turnInputNanoseconds: UInt64 = 4_000_000
    /// The least of it that each source of work is left where sources before it have more to do than there is time for:
    /// handoffs, strangers' requests, timers.
    package static let turnInboxNanosecondsMin: UInt64 = 500_000
    package static let turnStrangersNanosecondsMin: UInt64 = 1_000_000
    package static let turnTimersNanosecondsMin: UInt64 = 500_000
    /// The minimum of it for members that are set aside (worker/Loop/SettingAside.swift), so that they make progress
    /// however many others become ready.
    package static let turnAsideNanosecondsMin: UInt64 = 1_000_000
    /// A member whose incomplete message is longer than this is set aside: its last byte causes the work of the whole
    /// message, 0.5 ns a byte (Benchmarks/hostile, escaped-names-450). The messages that set up a call are shorter.
    package static let begunMessageAsideBytes = 4096
    /// Time for what goes out: rooms' batches, answers, removals.
    package static let turnOutputNanoseconds: UInt64 = 4_000_000
    /// The minimum of it for large rooms, which are sent to in pieces after the others.
    package static let turnLargeRoomsNanosecondsMin: UInt64 = 1_000_000
    /// Members that are sent a room's batch between two looks at the clock: half a millisecond. With fewer, a look is
    /// more of the cost; with more, a turn is longer. A room with more members than this is sent to in pieces.
    package static let flushPieceMembers = 64
    /// Bytes that are sent between two looks, where batches are large.
    package static let flushPieceBytes = 1 << 20
    /// Joins that waited for a large room's batch and are tried again: each is as costly as an accept.
    package static let laterJoinsPerTurnMax = 32
    /// Time for rooms that migrate. One member is exported whole, whatever waits for it.
    package static let turnMigrationNanoseconds: UInt64 = 2_000_000
    /// Time that one round over all ready connections should take: each has an equal share of it. Connections that cost
    /// more than their share are passed over in later rounds (worker/Loop/Share.swift).
    package static let roundNanoseconds: UInt32 = 2_000_000
    /// The least share. Below the cost of a read and its system call nothing is gained by passing over.
    package static let shareNanosecondsMin: UInt32 = 4000
    /// The least share of those that have just become ready: what a voice frame costs in a room of ten, its read and
    /// its sends. With less, voice is passed over, turn after turn, where hundreds are ready; with much more, so are
    /// those that cost more than voice.
    package static let shareBegunNanosecondsMin: UInt32 = 50_000
    /// Rounds in which a connection is passed over, at the most.
    package static let roundsPassedOverMax: UInt64 = 32
    /// Bytes that one round over all ready connections should read: `receiveBytesMax` for each of 32. As large messages
    /// they take some 2 ms to read and pass on, which is a round's time. With fewer, the messages of 50 busy members are
    /// cut into pieces, which costs half as much again; with more, a voice frame waits for longer rounds.
    package static let roundBytes = 32 * receiveBytesMax
    /// What a read may cost, in percent of the connection's share, at the cost of its recent reads. With 100, noise cuts
    /// the messages of busy rooms; with 200, ten floods of tiny messages make rounds of 4 ms.
    package static let readSharesPercent: UInt64 = 150
    /// The least of one read. A voice frame fits many times; with less, system calls are most of the work.
    package static let shareBytesMin = 4096
    /// Requests of one connection that are answered in one service: pages cost ten times as much a byte as messages.
    package static let requestsPerServiceMax = 8
    /// Bytes of one read while a connection is a request. The rest stays in the socket: it is counted nowhere here, and
    /// a handoff is small.
    package static let requestReadBytesMax = 4096
    /// Events taken from epoll at once, of members and of strangers. Those that a turn has no time for are the next
    /// one's.
    package static let eventsPerWaitMax = 512
    package static let strangerEventsPerWaitMax = 128
    /// Connections accepted. Each costs about 50 microseconds with its request; the calls of others go on between.
    package static let acceptsPerTurnMax = 32
    /// Connections taken from the inbox: as costly as an accept.
    package static let handoffsPerTurnMax = 32
    /// Bytes of one read, of which a connection gets one a turn: one that floods takes turns with the others. Also bounds what can
    /// stand behind a request's head when its connection is handed over.
    package static let receiveBytesMax = 65_536
    /// The loop's one buffer: a read behind what waits of TLS records, or a connection handed over. Pages that are never
    /// written cost nothing.
    package static let receiveBufferBytes = 196_608
    /// One room's bytes in one turn: beyond it they are sent before the turn ends. Well below what a socket buffer takes,
    /// so that a quick client never has a backlog of the relay's own making.
    package static let batchBytesMax = 262_144
    /// While a worker is busy, the data of a room that talks on and on leaves at this pace, 500 times a second. More between two
    /// sends, and people would feel it on a good line; less, and a room of 20 that all talk at once costs more (`Benchmarks/run`,
    /// flood).
    package static let dataSendIntervalNanoseconds: UInt64 = 2_000_000
    /// Sends by which a room may be ahead of that pace before anything waits: everybody may answer at once.
    package static let dataSendsAhead: UInt64 = 16
    /// A room's data, bytes, that is worth a send at once, busy or not: two full TLS records. Beyond it the send itself is little of
    /// the cost.
    package static let dataSendBytes = 32_768
    /// One message, frame and all, that leaves at once, with whatever waits. Its bytes cost more than its send, and a transfer in
    /// pieces may wait for each.
    package static let dataSendMessageBytes = 1024
    /// How long a turn waits for events while data is held back: epoll_wait(2) knows no shorter time.
    package static let holdingTurnMilliseconds: Int32 = 1
    /// Over how long a worker's load is measured, at the least.
    package static let loadWindowNanoseconds: UInt64 = 20_000_000
    /// Percent of a window that turns take in a worker that is busy from then on, and in one that is so no more below it. Holding
    /// back saves up to a quarter of the time (`Benchmarks/run`, flood): what makes the worker less busy must not end it.
    package static let busyPercentMin: UInt64 = 50
    package static let calmPercentMax: UInt64 = 35
    /// Batches that keep up to `batchBytesRetainedMax` between turns, so that the steady state allocates nothing; the
    /// others keep `batchBytesKeptMax`. Twice `batchBytesMax`, because queues double as they grow; for both lanes together
    /// at most 16 MiB, and 256 KiB a thousand rooms that talk in the same turn.
    package static let batchesRetained = 16
    package static let batchBytesRetainedMax = 2 * batchBytesMax
    package static let batchBytesKeptMax = 256
    /// Connections closed in a turn while the relay drains, at the least: a large relay's clients don't all come back in
    /// one instant. More where the time left asks for it.
    package static let drainClosesPerTurnMin = 64
    /// How long a worker that drains stays for rooms that are on their way to it. Their sender hears of the drain within a turn.
    package static let drainAwaitsNanoseconds: UInt64 = 1_000_000_000
    /// How long a turn waits for events while something must be tried again soon: a handover, a drain, an accept.
    package static let busyTurnMilliseconds: Int32 = 5
    /// The same while a worker leaves: an inbox that had enough is read within a fraction of it.
    package static let leavingTurnMilliseconds: Int32 = 1
    /// How long a listener is left alone when accept(2) fails for want of descriptors or memory.
    package static let acceptPauseNanoseconds: UInt64 = 100_000_000

    // MARK: - One connection

    /// Time for TLS handshake and request head, from the accept or from the answer before: the wire protocol's.
    package static let requestSeconds = 10
    /// Requests of a connection that does not join, the last answered with `Connection: close`; and how long it may
    /// take for them in all. A browser needs two, a balancer's checks come on connections of their own.
    package static let requestsPerConnectionMax = 100
    package static let unjoinedSeconds = 60
    /// Answers to pipelined requests that may wait in bytes; beyond it the connection is not read.
    package static let answersWaitingMax = 16_384
    /// Time for a message that has begun to end, and for a TLS record. A message has a second more for each
    /// `begunBytesPerSecond` of it that have come: a slow line may take as long as it needs, one that only holds memory
    /// may not.
    package static let begunSeconds = 30
    package static let begunBytesPerSecond = 8192
    /// Silence that ends a connection, and TCP_USER_TIMEOUT: the wire protocol's.
    package static let silenceSeconds = 60
    /// Pongs and pings that may wait, bytes: for a client that sends pings and does not read. Further ones are not
    /// answered; only the latest needs to be (RFC 6455, 5.5.3).
    package static let controlBytesWaitingMax = 1024
    /// Voice frames that may wait for one client: the wire protocol's. 1.28 s at 50 a second.
    package static let voiceFramesWaitingMax = 64
    /// TCP_NOTSENT_LOWAT, bytes: what the kernel holds unsent. What lies there can't be overtaken by voice; far less would
    /// wake the worker more often for each large message.
    package static let unsentBytesMax = 65_536
    /// For the last bytes to leave, a close frame or an answer.
    package static let closeFlushSeconds = 5
    /// For the client to close its side when the last byte has left.
    package static let lingerSeconds = 2

    // MARK: - Memory

    /// What a worker may always hold of RELAY_MAX_MEMORY, whatever other workers hold: what it keeps for speed, a
    /// message of the largest size on its way in, and the same on its way out.
    package static func memoryFloorBytes(_ configuration: Configuration) -> Int {
        (6 << 20) + 2 * configuration.messageBytesMax
    }
    /// In such pieces a worker takes more. Smaller ones would make workers meet at the common counter more often,
    /// larger ones would lie idle in each.
    package static let memoryPieceBytes = 1 << 20
    /// A worker that has more than its equal part of RELAY_MAX_MEMORY leaves one in so many parts of it to the others.
    package static let memoryReservePart = 8
    /// Connections, shares and sources looked at for who gives way: some 100 ns each.
    package static let memorySharesLookedAtMax = 1024
    /// What small holders of one worker may have beyond its part for moments, while those that hold most are being
    /// closed: some hundred messages of the usual size, and little beside a worker's floor.
    package static let memoryOverdraftBytes = 1 << 20
    /// Shares in which one is sought who can give way.
    package static let memorySharesTriedMax = 8
    /// What a connection takes before it holds a byte: its place in the worker's tables, of which some are empty, and
    /// the addresses'.
    package static let connectionHeldBytes = 768
    /// What a TLS session takes beside that: its keys, its secrets and, once it is busy, libcrypto's contexts.
    package static let tlsSessionHeldBytes = 1536
    /// What libssl takes for a handshake.
    package static let tlsHandshakeHeldBytes = 51_200
    /// The heap is trimmed after a peak that was so much above what is held now, and no more often than so. It takes 10
    /// ms for some 100 MB.
    package static let heapTrimmedBytesMin = 16 << 20
    package static let heapTrimNanoseconds: UInt64 = 10_000_000_000
    /// Allocations from so many bytes on are pages of their own, which go back to the kernel when they are freed. No
    /// more than so many: a process has 65,530 mappings at most (vm.max_map_count).
    package static let heapMappedBytesMin = 65_536
    package static let heapMappingsMax = 32_768

    /// Below this capacity a queue that grows doubles, above it it grows by a quarter: large ones hold what has come,
    /// and not twice as much.
    package static let queueDoublesBytesMax = 65_536
    /// The same of a message that has not come whole, of which there may be one a connection.
    package static let messageDoublesBytesMax = 4096
    /// The shortest range of a batch that members who have to wait share (worker/Connection/SharedBlocks): a shorter
    /// one is copied for each. A send takes 64 ranges, so these make 256 KiB, more than a socket takes at once.
    package static let sharedRangeBytesMin = 4096
    /// Waiting bytes of one lane that are copied when it grows. More become a block and stay in place: a copy of this
    /// many costs some 10 us, a copy of a full backlog as much as a turn.
    package static let laneBytesMovedMax = 65_536
    /// What is left of a shared block for one member is copied if it is no longer than this, and the block at least
    /// `remainderBlocksRatio` times as large: a copy is cheaper than the block.
    package static let remainderCopiedBytesMax = 4096
    package static let remainderBlocksRatio = 4

    /// Queues' memory that goes round between connections (worker/Loop/QueuePool): how many, and how large each may be, at most
    /// 8 MiB together: what one turn of one room leaves waiting fits.
    package static let spareQueues = 16
    package static let spareQueueBytesMax = batchBytesRetainedMax

    // MARK: - Handoff

    /// Input that travels with a connection: a whole request head, and what a read brought behind it, records that
    /// were waiting for it included.
    package static let handoffInputBytesMax = requestHeadBytesMax + tlsRecordBytesMax + receiveBytesMax
    /// TLS records that travel with a connection because its socket has not taken them.
    package static let handoffOutputBytesMax = 32_768
    /// Moves of a connection before it is let in. One is enough while workers agree, and each reload that happens meanwhile
    /// may add one; more means that they don't agree.
    package static let handoffHopsMax = 8
    /// How long a connection waits for an owner whose inbox is full, before 503.
    package static let handoffSeconds = 5
    /// Connections of one worker that wait so: beyond it 503 at once.
    package static let handoversWaitingMax = 4096
    /// SO_SNDBUF of an inbox, bytes, as far as net.core.wmem_max allows: a few thousand connections that wait for a
    /// worker which is being restarted. 212,992, which Linux allows by default, holds the longest single message.
    package static let inboxBufferBytes = 4 << 20
    /// SO_SNDBUF of a control channel: holds the longest message many times.
    package static let controlBufferBytes = 1 << 20
    /// What Linux allows a socket buffer without privilege (net.core.wmem_max by default).
    package static let socketBufferBytesDefault = 212_992

    // MARK: - Client addresses

    /// A line of the PROXY protocol's version 1, with its CR LF: the longest that there can be (proxy-protocol.txt,
    /// 2.1).
    package static let proxyLineBytesMax = 107
    /// What follows the first 16 bytes of a header of version 2: addresses are 36 bytes, or 216; the rest is for TLVs,
    /// of which a client's certificate is the longest that proxies send.
    package static let proxyBlockBytesMax = 4096
    /// A header of either version.
    package static let proxyHeaderBytesMax = 16 + proxyBlockBytesMax
    /// A host name: what DNS carries (RFC 1035, 2.3.4), as text.
    package static let hostNameBytesMax = 253
    /// An origin, as a browser sends it: a scheme, a host name and a port.
    package static let originBytesMax = 300

    // MARK: - Change of generations

    /// Rooms that a worker sends to its successor in one turn: between turns its other rooms are served.
    package static let roomsMovedPerTurnMax = 2
    /// Memory of messages unread in an inbox beyond which no further room begins to move there: a room is quiet until its
    /// last member has been taken, so few may be in front of it: about a dozen, without a backlog.
    package static let moveUnreadBytesMax: Int32 = 16_384
    /// How long new workers may take to be ready, before the change is given up. They take milliseconds.
    package static let generationReadyNanoseconds: UInt64 = 30_000_000_000
    /// How long the new program may take to say whether it can take over: longer than the check of certificate and key, which is
    /// a part of it.
    package static let takeOverCheckMilliseconds: Int32 = 15_000
    /// Processes that may die in a place that is being left, before what waits in its inbox is given up.
    package static let leaverDeathsMax = 3
    /// How far apart the supervisor looks whether certificate or key have changed.
    package static let credentialLookNanoseconds: UInt64 = 10_000_000_000
    /// What waits for or from a member, in the message that moves it; more goes beside it in a file.
    package static let moveInlineBytesMax = 65_536
    /// How long a join waits for its room to arrive, before 503. A worker with 100,000 clients needs some seconds.
    package static let roomArrivalSeconds = 30
    /// How long a worker that has no room left waits for its last connections: handshakes, answers and closes have their own
    /// deadlines, which are shorter.
    package static let leaveSeconds = 30

    // MARK: - TLS

    /// Records under one key before it is renewed (RFC 8446, 5.5). AES-GCM allows 2^24.5 of full size; a third of that
    /// leaves time to renew it. The client is asked for a new key of its own at the same number.
    package static let tlsRecordsPerKey: UInt64 = 1 << 23
    /// Records under one key at most: a client that was asked for a new key and goes on with the old one is refused.
    package static let tlsRecordsPerKeyMax: UInt64 = 1 << 24
    /// Records in a row that carry no data. Each costs a decryption, so a client must not get any number of them for
    /// nothing; no client sends more than a few.
    package static let tlsIdleRecordsMax: UInt8 = 32
    /// KeyUpdates that a client may send in a moment, and the seconds in which as many more are allowed: 2 to 5 us
    /// each, which is what some kilobytes of data cost.
    package static let tlsKeyUpdatesBurst: UInt32 = 64
    /// Bytes of a handshake. A ClientHello with every extension and a ticket is below 3 KiB.
    package static let tlsHandshakeBytesMax = 65_536
    /// Records that a direction protects with the worker's own context, keyed anew for each (125 ns), before it gets a
    /// context of its own (1.1 KB). So a connection with a ping a minute never has one.
    package static let tlsSharedContextRecordsMax: UInt32 = 8
    /// Bytes of records that are read and not yet decrypted: a record that lacks a byte, and a read behind it.
    package static let tlsInputBytesMax = tlsRecordBytesMax + receiveBytesMax
    /// A whole record of a client's: header, content, type, padding and tag (RFC 8446, 5.2).
    package static let tlsRecordBytesMax = 5 + 16_384 + 256
    /// Records sealed before they are sent together. What the socket does not take of them waits as ciphertext, which voice
    /// can't overtake; fewer would cost more system calls for large messages.
    package static let tlsSealBytesMax = 4 * (16_384 + 22) + tlsJoinedBytesMax + 256
    /// Handshake steps in one turn. A step with a client's key share costs up to 250 us with an ECDSA certificate and
    /// twice that with RSA; calls of others go on between turns, so a storm of joins takes longer and they don't stutter.
    package static let tlsHandshakeStepsPerTurnMax = 4
    /// Connections that have waited for a step and are looked at in one turn: those that have ended meanwhile, or say nothing of TLS,
    /// take none, but a system call or three each.
    package static let tlsHandshakesResumedPerTurnMax = 64
    /// Connections that wait for a step and stay watched meanwhile: as many as have theirs within six turns, where none that have begun
    /// come in front of them. Not to watch one costs two system calls altogether, to watch it a look by epoll each turn; with many
    /// more a turn's events would be theirs and not the calls'.
    package static let tlsHandshakesWatchedMax = 6 * tlsHandshakeStepsPerTurnMax
    /// Handshakes that libssl is at work on at a time: about 50 KiB each, and 100 MiB for all.
    package static let tlsHandshakesMax = 2048
    /// Of these for one address, and `wideCountFactor` times as many for a /48: a few hundred people behind one address
    /// come back within a second, because a place is free again after a round trip; the rest of them wait.
    package static let tlsHandshakesPerAddressMax = tlsHandshakesMax / 16
    /// Connections whose ClientHello is here and waits for its turn: some 2 KiB each, 17 KiB at the worst. With more,
    /// the newest of the party that has most is dropped; all of them would take half a second of a worker's time.
    package static let tlsHandshakesWaitingMax = 2048
    /// Of so many steps one is for a handshake that has not begun, whatever others have begun.
    package static let tlsStepsPerNewHandshake = 4
    /// Parties that are asked whether they have a place free, before all wait: more than can be at their maximum at a
    /// time.
    package static let tlsPartiesAskedMax = 2 * tlsHandshakesMax / tlsHandshakesPerAddressMax
    /// A ClientHello: one record's worth (RFC 8446, 5.1), and what headers take where it is cut into some. With
    /// post-quantum key shares it is below 4 KiB.
    package static let tlsHelloBytesMax = 16_384 + 64 * 5
    /// Time for it, from the accept: it comes with the first packet or two of the connection.
    package static let tlsHelloSeconds = 3
    /// Handshakes at a time behind which, once they are over, the heap's free memory is given back to the kernel.
    package static let tlsHandshakesTrimmed = 256
    /// Ciphertext that waits and is so short is sent together with what is sealed next.
    package static let tlsJoinedBytesMax = 4096
    /// NewSessionTickets after a full handshake (RFC 8446, 4.6.1), as many as behind a resumed one: a client may use each once, has
    /// one connection, and gets the next ticket with it. The relay before this one sent one, too.
    package static let tlsTickets = 1
    /// How long a ticket is good for, seconds.
    package static let tlsTicketSeconds = 7200
    /// Keys of the ticket ring: the newest makes tickets, the others still open theirs. With one drawn an hour, a ticket
    /// can be used as long as it is good.
    package static let ticketKeys = 3
    /// How often a new key is drawn.
    package static let ticketKeyNanoseconds: UInt64 = 3_600_000_000_000
    /// A ticket key: a name, a key of HMAC-SHA-256, a key of AES-256 (RFC 5077, 4).
    package static let ticketKeyBytes = 80
    /// A certificate chain's or a private key's file.
    package static let credentialBytesMax = 1 << 20
    /// A path in RELAY_TLS_CERT or RELAY_TLS_KEY: PATH_MAX.
    package static let pathBytesMax = 4096
    /// How long the check of certificate and key may take; it takes milliseconds.
    package static let credentialCheckMilliseconds: Int32 = 10_000
    /// Days before a certificate's end from which a warning is logged at the start.
    package static let certificateWarningDays = 14

    // MARK: - Processes

    /// Workers at most. Handoffs need a descriptor from each worker to each: 65,536 over the machine at this many.
    package static let workersMax = 256
    /// Pages of shared memory for workers: for those that serve, and for up to three generations of others that are letting their
    /// last connections go. A reload waits until there are enough.
    package static let workerPages = 4 * workersMax
    /// Descriptors that the supervisor holds for a worker: listener, inbox (2 ends), control channel, and as many
    /// again while a successor is being launched.
    package static let descriptorsPerWorker = 8
    /// Descriptors that any process needs beside those: standard streams, epoll, signals, shared memory, the
    /// connection being refused, the descriptors of a message that has just come in; in the supervisor the admin listeners'
    /// connections.
    package static let descriptorsReserved = 64

    /// A worker whose loop has not turned for so long does not serve, says `/health`; it beats once a second at least.
    /// Shorter than what the supervisor waits for before it kills, or hardly anybody would see it.
    package static let heartbeatSilenceNanoseconds: UInt64 = 3_000_000_000
    /// How far apart the supervisor looks at workers' heartbeats.
    package static let heartbeatCheckNanoseconds: UInt64 = 1_000_000_000
    /// A worker that shows the same heartbeat at so many looks in a row is killed and replaced. Looks and not time: when
    /// the whole machine has stood still (a virtual machine moved, a laptop's lid) nobody has beaten, and nobody hangs.
    package static let heartbeatSilentChecksMax = 5
    /// CPU time that such a worker has used meanwhile, and has nothing to show for, seconds; one that waits for
    /// anything hangs whatever it has used. With less, it is the CPU that it waits for, and it is left alone.
    package static let hangCPUSeconds = 1.0
    /// The same looks for a worker that is not ready yet.
    package static let launchSilentChecksMax = 30
    /// Deaths in a row after which a worker keeps crashing, for `/health`: by then it has been restarted within 1.5 s,
    /// each time in vain.
    package static let deathsInRowUnhealthy = 5
    /// Time beyond RELAY_SHUTDOWN_GRACE that a worker has to end by itself before it is killed.
    package static let killDelayNanoseconds: UInt64 = 1_000_000_000
    /// listen(2)'s backlog, per worker; the kernel caps it at net.core.somaxconn. A restarted worker finds in it whoever
    /// came meanwhile.
    package static let listenBacklog = 4096
    /// The user and group that a worker of a relay started as root becomes if there is no other: Debian's nobody and
    /// nogroup.
    package static let nobody: UInt32 = 65_534
    /// RELAY_WORKER_USER: useradd(8)'s longest name.
    package static let userNameBytesMax = 32

    /// A file that a worker may write (RLIMIT_FSIZE), bytes: it has no name and holds what waits for one member that
    /// moves: a backlog, a message on its way in, one on its way out beyond the backlog, and voice.
    package static func workerFileBytesMax(_ configuration: Configuration) -> UInt64 {
        UInt64(configuration.backlogBytesMax + (2 + voiceFramesWaitingMax) * configuration.messageBytesMax + (1 << 20))
    }

    // MARK: - Admin listeners

    /// Connections of RELAY_METRICS_ADDR at a time: a handful of scrapers need one each. A further one takes the place of the
    /// one that has been silent for longest. Few, because they are the supervisor's descriptors, which it needs for workers.
    package static let adminConnectionsMax = 32
    /// The same of the Unix socket: whoever fills the one keeps nobody out of the other.
    package static let adminLocalConnectionsMax = 8
    /// The same of the Unix socket for other users, who are told that they are refused.
    package static let adminForbiddenConnectionsMax = 2
    /// listen(2)'s backlog.
    package static let adminBacklog = 16
    /// Connections accepted, events looked at, and requests answered in one turn of the supervisor's loop. An answer costs up
    /// to some milliseconds (two files of /proc for each worker), and the workers are looked after between turns.
    package static let adminAcceptsPerTurnMax = 8
    package static let adminEventsPerTurnMax = 16
    package static let adminAnswersPerTurnMax = 2
    /// One read; a head is `requestHeadBytesMax` at most, as at the public port.
    package static let adminReadBytesMax = 4096
    /// Time for a request's head, from the accept or its first byte.
    package static let adminRequestNanoseconds: UInt64 = 5_000_000_000
    /// How long a connection may stay silent between requests: scrapers ask every minute at the least.
    package static let adminIdleNanoseconds: UInt64 = 120_000_000_000
    /// Time for an answer to leave.
    package static let adminFlushNanoseconds: UInt64 = 5_000_000_000
    /// For the client to close its side when the last byte has left.
    package static let adminLingerNanoseconds: UInt64 = 1_000_000_000
    /// How long a listener is left alone when accept(2) fails for want of descriptors or memory.
    package static let adminAcceptPauseNanoseconds: UInt64 = 100_000_000
    /// How long `relay status` and `relay health` wait for an answer. The supervisor answers within milliseconds.
    package static let adminClientMilliseconds = 5000
    /// How long `relay reload` and its like wait for the end of what they have asked for: longer than new workers may take to be
    /// ready, and than a large relay's rooms take to move.
    package static let adminChangeMilliseconds = 120_000
    /// An answer that they take: /metrics of 256 workers is below 256 KiB.
    package static let adminResponseBytesMax = 4 << 20

    // MARK: - Control channel

    /// One message of the control channel. The longest are a launch, with a configuration whose lists are full, and a
    /// list of host keys. Must fit the socket buffer of the channel.
    package static let controlMessageBytesMax = 32_768
    /// Host keys in one message: the longest fit.
    package static let hostKeysPerMessageMax = 48
    /// How long a worker waits for more before it tells the supervisor of rooms that have opened or closed. In a storm of joins tens of
    /// rooms share a message, and the supervisor is woken a hundred times a second at the most; with more, a worker that crashes
    /// takes the keys of rooms along which have been in use for a while.
    package static let hostKeyReportNanoseconds: UInt64 = 10_000_000
    /// Messages of one worker that the supervisor takes in one turn of its loop; between turns it looks after the
    /// others.
    package static let controlMessagesPerTurnMax = 64
    /// Messages of one worker that it takes in a second, and at once: a storm of joins makes a hundred, the death of a
    /// leaver one for 48 rooms. Beyond it they wait in the channel.
    package static let controlMessagesPerSecond: UInt64 = 2000
    package static let controlMessagesBurst = 8192
    /// Messages of a process that has ended: more than its channel holds, for it may have given its end away.
    package static let controlMessagesLastMax = 8192
    /// Messages of one process that are malformed or out of place, before it is killed. In its right mind a worker
    /// sends none; a few may cross with a message of the supervisor's.
    package static let controlFaultsMax = 64
    /// Looks a second apart at which a process may be without its control channel before it is killed.
    package static let controlLostChecksMax = 3
    /// The reason of a worker that could not begin.
    package static let failureBytesMax = 1024
    /// Host keys of one worker's slot: those of all rooms, those that outlived their rooms' worker, and a margin.
    package static func hostKeysMax(_ configuration: Configuration) -> Int { 2 * configuration.roomsMax + 1024 }
    /// Host keys of all slots. One slot that holds as many as it may leaves the others as many as they can need.
    package static func hostKeysTotalMax(_ configuration: Configuration) -> Int {
        2 * hostKeysMax(configuration) + 1024 * configuration.workers
    }
    /// Looks a second apart at which a count over the whole relay must be wrong before the supervisor puts it right.
    package static let quotaLooksMax = 10
    /// Rooms, or connections, that may be counted and in no worker's gauge, or the other way round: those on their way
    /// between workers at a reload.
    package static let quotaMargin: UInt64 = 512
    /// Messages that are thrown away from an inbox that nobody will read: more than it holds, for others may still fill
    /// it.
    package static let inboxDiscardsMax = 65_536
    /// Messages that wait for a worker or supervisor that does not read; a launch is sent whole, whatever its length.
    package static let controlQueueMessagesMax = 4096

    // MARK: - Configuration: what an operator may set

    /// RELAY_MAX_ROOMS.
    package static let roomsRange = 1...1_000_000
    /// RELAY_MAX_CLIENTS_PER_ROOM. Each message costs a delivery per client: beyond this a room is not a
    /// conversation.
    package static let clientsPerRoomRange = 1...10_000
    /// RELAY_MAX_MESSAGE_SIZE, bytes. Below 1 KiB not even the envelope of a handshake fits; above 64 MiB one message
    /// takes a worker's loop so long that the voices of its other rooms stutter.
    package static let messageBytesRange = 1024...(64 << 20)
    /// RELAY_ROOM_IDLE_TIMEOUT, seconds: up to 30 days.
    package static let roomIdleSecondsRange = 1...2_592_000
    /// RELAY_RATE_LIMIT_PER_IP, joins per second; 0 is off.
    package static let joinsPerSecondRange = 0...100_000
    /// RELAY_WORKERS.
    package static let workersRange = 1...workersMax
    /// RELAY_MAX_BACKLOG, bytes: room for one message at least (checked against RELAY_MAX_MESSAGE_SIZE as well).
    package static let backlogBytesRange = (messageBytesRange.lowerBound + frameHeaderBytesMax)...(1 << 30)
    /// RELAY_MAX_MEMORY, bytes. What the workers need at the least is a relation (Configuration.relations).
    package static let memoryRange = (8 << 20)...(1 << 40)
    /// RELAY_MAX_CONNECTIONS, and what `auto` comes to where the descriptor limit is higher: some container engines
    /// set it to a billion, which would be no limit at all.
    package static let connectionsRange = 1...1_000_000
    /// RELAY_MAX_CONNECTIONS_PER_IP; 0 is off.
    package static let connectionsPerAddressRange = 0...connectionsRange.upperBound
    /// RELAY_MAX_MESSAGES_PER_SECOND and RELAY_MAX_BYTES_PER_SECOND, of one member; 0 is off.
    package static let messagesPerSecondRange = 0...1_000_000
    package static let bytesPerSecondRange = 0...(1 << 32)
    /// RELAY_PING_INTERVAL, seconds: below it a phone's radio never sleeps, above it a ping that is lost ends a
    /// connection.
    package static let pingSecondsRange = 5...30
    /// RELAY_MAX_ROOMS_PER_IP; 0 is off.
    package static let roomsPerAddressRange = 0...roomsRange.upperBound
    /// RELAY_SHUTDOWN_GRACE, seconds; 0 closes at once.
    package static let shutdownGraceSecondsRange = 0...3600
    /// Ranges in RELAY_TRUSTED_PROXIES: each join is compared with all of them.
    package static let trustedProxiesMax = 256
    /// Origins in RELAY_ALLOWED_ORIGINS: each join of a browser's is compared with all of them.
    package static let allowedOriginsMax = 16
    /// Names in RELAY_METRICS_HOSTS.
    package static let metricsHostsMax = 16
    /// The value of one RELAY_ variable: more than any valid one needs (a range is 44 bytes with its comma).
    package static let environmentValueBytesMax = 12_288
    /// A file given with --env-file: every variable with its longest value would be more, but nobody needs all of them.
    package static let environmentFileBytesMax = 65_536
    /// As much of a bad value as an error quotes.
    package static let quotedValueBytesMax = 100

    // MARK: - Log

    /// One line with its line feed: PIPE_BUF, so that the lines of all processes leave whole through one pipe.
    package static let logLineBytesMax = 4096
    /// The message of a line, escaped.
    package static let logMessageBytesMax = 1024
    /// One metadata value, escaped: a room id of `roomIDBytesMax` fits where nothing in it needs escaping.
    package static let logValueBytesMax = 512
    /// One metadata key, and the name of the process, escaped.
    package static let logKeyBytesMax = 64

    // MARK: - Relations

    /// The relations between limits that do not hold: none, unless somebody changed one without the other.
    package static var problems: [String] {
        let relations: [(Bool, String)] = [
            (tokenBytesMax + 3 * roomIDBytesMax < requestHeadBytesMax, "a join fits the request head"),
            (
                trustedProxiesMax * 44 <= environmentValueBytesMax,
                "as many trusted proxies as allowed fit an environment value"
            ),
            (
                trustedProxiesMax * AddressRange.encodedBytes + allowedOriginsMax * (originBytesMax + 4)
                    + metricsHostsMax * (hostNameBytesMax + 4) + 2 * pathBytesMax + 4 * workersMax + 1024
                    <= controlMessageBytesMax,
                "a launch fits its message"
            ),
            (
                allowedOriginsMax * (originBytesMax + 1) <= environmentValueBytesMax
                    && metricsHostsMax * (hostNameBytesMax + 1) <= environmentValueBytesMax,
                "as many origins and host names as allowed fit an environment value"
            ),
            (
                proxyLineBytesMax < proxyHeaderBytesMax && proxyHeaderBytesMax <= handoffInputBytesMax
                    && proxyHeaderBytesMax <= receiveBufferBytes,
                "a PROXY header that has not come whole can be looked at and handed over"
            ),
            (
                logMessageBytesMax + logValueBytesMax + 3 * logKeyBytesMax + 256 <= logLineBytesMax,
                "a line has room for its message and a value"
            ),
            (
                backlogBytesRange.upperBound >= messageBytesRange.upperBound + frameHeaderBytesMax,
                "a message fits a backlog"
            ),
            (roomIDBytesMax <= logValueBytesMax, "a room id fits a log value"),
            (
                handoffInputBytesMax + handoffOutputBytesMax + tlsRecordBytesMax + 4096 <= receiveBufferBytes,
                "a connection handed over fits the receive buffer"
            ),
            (
                moveInlineBytesMax + tlsInputBytesMax + 4096 <= receiveBufferBytes,
                "a member that moves fits the receive buffer"
            ),
            (tlsInputBytesMax + receiveBytesMax <= receiveBufferBytes, "a read fits behind what was kept"),
            (
                receiveBufferBytes <= socketBufferBytesDefault,
                "a connection handed over fits the smallest inbox there may be"
            ),
            (
                hostKeysPerMessageMax * (roomIDBytesMax + publicKeyBytes + 16) + 16 <= controlMessageBytesMax,
                "a list of host keys fits its message"
            ),
            (controlMessageBytesMax <= socketBufferBytesDefault, "a control message fits its channel"),
            (
                turnInboxNanosecondsMin + turnStrangersNanosecondsMin + turnTimersNanosecondsMin
                    <= turnInputNanoseconds / 2
                    && turnAsideNanosecondsMin <= turnInputNanoseconds / 4,
                "members have half of a turn's input at the least"
            ),
            (
                UInt64(shareBegunNanosecondsMin) < UInt64(shareNanosecondsMin) * roundsPassedOverMax,
                "who owes most is passed over, though it has just become ready"
            ),
            (shareBytesMin <= receiveBytesMax, "the least read is one read"),
            (requestReadBytesMax < requestHeadBytesMax, "what is kept of a request is little more than its head"),
            (
                tlsHandshakesResumedPerTurnMax >= tlsHandshakeStepsPerTurnMax,
                "a turn can look at as many handshakes as it can take a step of"
            ),
            (
                strangerEventsPerWaitMax >= 2 * tlsHandshakesWatchedMax,
                "handshakes that wait leave most of a turn's events to others"
            ),
            (
                UInt64(tlsTicketSeconds) * 1_000_000_000 <= ticketKeyNanoseconds * UInt64(ticketKeys - 1),
                "a ticket's key stays as long as the ticket is good"
            ),
            (
                adminConnectionsMax + adminLocalConnectionsMax + adminForbiddenConnectionsMax + 16
                    <= descriptorsReserved,
                "the supervisor's own descriptors and those of the admin listeners fit what is reserved"
            ),
            (
                AddressLedger.recordsMax
                    >= connectionsRange.upperBound + handoversWaitingMax + eventsPerWaitMax + acceptsPerTurnMax
                    + handoffsPerTurnMax,
                "a ledger has a record for each connection that a worker can have"
            ),
            (
                2 * pingSecondsRange.upperBound <= silenceSeconds,
                "a second ping is sent before a connection is given up"
            ),
            (
                AddressLedger.recordsMax >= roomsRange.upperBound + handoffsPerTurnMax + 128,
                "a ledger has a record for each room that a worker can have"
            ),
            (handoffSeconds < requestSeconds, "a handover gives up before the request's time is over"),
            (sharedRangeBytesMin >= frameHeaderBytesMax, "a range that is shared holds a frame"),
            (batchBytesKeptMax <= batchBytesRetainedMax, "retained batches keep more than the others"),
            (
                heartbeatSilenceNanoseconds < UInt64(heartbeatSilentChecksMax - 1) * heartbeatCheckNanoseconds,
                "a worker that hangs is seen to hang before it is killed"
            ),
            (dataSendMessageBytes < dataSendBytes, "several messages can wait together"),
            (dataSendBytes < batchBytesMax, "what is held back is less than what is sent in the middle of a turn"),
            (calmPercentMax < busyPercentMin, "a worker that holds data back does not by that stop being busy"),
            (tlsRecordsPerKey < tlsRecordsPerKeyMax, "a key is renewed before it may not be used any more"),
            (tlsInputBytesMax <= receiveBufferBytes, "records that wait fit the receive buffer"),
            (tlsHelloBytesMax <= receiveBytesMax, "a ClientHello can be given to libssl as one read"),
            (tlsHelloBytesMax <= handoffInputBytesMax, "a ClientHello fits a handoff"),
            (tlsHelloSeconds <= requestSeconds, "a ClientHello is a part of a request's time"),
            (requestSeconds <= unjoinedSeconds, "a first request has its time"),
            (requestsPerConnectionMax <= 255, "a connection's requests are counted in a byte"),
            (
                2 * gaveWayPerTurnMax <= descriptorsReserved,
                "those who give way fit what is reserved beside the newcomers"
            ),
            (
                tlsHandshakesPerAddressMax * wideCountFactor <= tlsHandshakesMax / 2,
                "one party leaves half of the places for handshakes to others"
            ),
            (tlsHandshakeBytesMax <= receiveBytesMax, "what is left of a handshake's last read fits a session"),
        ]
        return relations.filter { !$0.0 }.map(\.1)
    }

    /// Traps unless a configuration, however it came to be, keeps the relations that the code relies on.
    package static func check(_ configuration: Configuration) {
        if let setting = configuration.firstInvalid { preconditionFailure("\(setting) is not within its limits") }
    }
}
