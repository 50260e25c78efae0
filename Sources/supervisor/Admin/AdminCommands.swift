// What an admin client may have done to the relay: a POST on the Unix socket, answered when it is over.
//
//     POST /reload       POST /upgrade       POST /recycle/WORKER
//     GET /change        200 with the outcome of the last one, 500 if it failed, 503 while one goes on, 404 if there has been none
//
// An upgrade cuts its connection, for the program that took the request is no more; whoever asked for it then asks /change.

import Shared

/// A change that an admin client asks for.
enum AdminCommand: Equatable {
    case reload
    case upgrade
    case recycle(Int)

    /// nil where a path is none of theirs.
    init?(path: String) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        switch parts.count {
        case 2 where parts[1] == "reload": self = .reload
        case 2 where parts[1] == "upgrade": self = .upgrade
        case 3 where parts[1] == "recycle":
            guard parts[2].utf8.count <= 4, parts[2].utf8.allSatisfy({ isDigit($0) }), let index = Int(parts[2]) else {
                return nil
            }
            self = .recycle(index)
        default: return nil
        }
    }

    var path: String {
        switch self {
        case .reload: "/reload"
        case .upgrade: "/upgrade"
        case .recycle(let index): "/recycle/\(index)"
        }
    }
}

/// How a change has ended.
struct ChangeOutcome: Equatable {
    var isSuccess: Bool
    /// For people: what was done, or why nothing was.
    var text: String

    var answer: AdminAnswer { .text(isSuccess ? .ok : .internalServerError, text + "\n") }
}
