import Glibc
import Testing

/// What a thread is to run.
private final class Job {
    let run: () -> Void

    init(_ run: @escaping () -> Void) {
        self.run = run
    }
}

/// Runs `body` on that many threads at once, and returns when all have ended.
func inParallel(_ count: Int, _ body: @Sendable (Int) -> Void) {
    withoutActuallyEscaping(body) { body in
        var threads: [pthread_t] = []
        for index in 0..<count {
            var thread = pthread_t()
            let job = Unmanaged.passRetained(Job { body(index) })
            let result = pthread_create(
                &thread, nil,
                { argument in
                    guard let argument else { return nil }
                    Unmanaged<Job>.fromOpaque(argument).takeRetainedValue().run()
                    return nil
                }, job.toOpaque())
            if result == 0 {
                threads.append(thread)
            } else {
                job.release()
                Issue.record("no thread: \(result)")
            }
        }
        for thread in threads { pthread_join(thread, nil) }
    }
}
