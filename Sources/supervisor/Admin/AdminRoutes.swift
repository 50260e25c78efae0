// What the admin listeners answer to whom.

import Shared

enum AdminRoutes {
    /// - Parameters:
    ///   - names: RELAY_METRICS_HOSTS.
    ///   - report: made when an answer needs it.
    ///   - outcome: of the last change; nil if there has been none. `isChanging`: whether one is under way.
    ///   - perform: begins what is asked for.
    static func reply(
        to admin: AdminRequest, names: [HostName], report: () -> RelayReport, outcome: ChangeOutcome? = nil,
        isChanging: Bool = false,
        perform: (AdminCommand) -> AdminReply = { _ in .now(.text(.notFound, "not found\n")) }
    ) -> AdminReply {
        if let refusal = AdminRefusal(admin, names: names) { return .refused(refusal) }
        // Others than the relay's own user learn nothing of these, not even that they are there.
        if admin.isLocal, let command = AdminCommand(path: admin.request.path) {
            guard admin.request.method == .other("POST") else {
                var answer = AdminAnswer.text(.methodNotAllowed, "method not allowed\n")
                answer.allow = "POST"
                return .now(answer)
            }
            return perform(command)
        }
        if admin.isLocal, admin.request.path == "/change", admin.request.method == .get {
            if isChanging { return .now(.text(.serviceUnavailable, "a change is under way\n")) }
            return .now(outcome?.answer ?? .text(.notFound, "nothing has changed since the start\n"))
        }
        guard let page = Page(rawValue: admin.request.path) else { return .now(.text(.notFound, "not found\n")) }
        switch admin.request.method {
        case .get, .head:
            return .now(answer(page, report))
        case .other:
            var answer = AdminAnswer.text(.methodNotAllowed, "method not allowed\n")
            answer.allow = "GET, HEAD"
            return .now(answer)
        }
    }

    private enum Page: String, CaseIterable {
        case index = "/"
        case health = "/health"
        case alive = "/livez"
        case ready = "/readyz"
        case metrics = "/metrics"
        case status = "/status"
    }

    private static func answer(_ page: Page, _ report: () -> RelayReport) -> AdminAnswer {
        switch page {
        case .index: .text(.ok, Page.allCases.map { $0.rawValue + "\n" }.joined())
        case .health: health(report())
        case .alive: .text(.ok, "ok\n")
        case .ready: ready(report())
        case .metrics: AdminAnswer(status: .ok, contentType: Metrics.contentType, body: Metrics.text(report()))
        case .status: status(report())
        }
    }

    /// 503 in the same cases as at the public port.
    private static func status(of report: RelayReport) -> Status {
        report.health == .unavailable ? .serviceUnavailable : .ok
    }

    private static func health(_ report: RelayReport) -> AdminAnswer {
        AdminAnswer(
            status: status(of: report), contentType: "application/json", body: HealthReport.json(report) + "\n")
    }

    private static func ready(_ report: RelayReport) -> AdminAnswer {
        guard let reason = report.unreadyReason else { return .text(.ok, "ready\n") }
        return .text(.serviceUnavailable, reason + "\n")
    }

    private static func status(_ report: RelayReport) -> AdminAnswer {
        .text(status(of: report), StatusTable.text(report))
    }
}
