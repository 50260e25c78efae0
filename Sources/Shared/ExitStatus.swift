/// Exit statuses of the relay's processes: those of sysexits.h where one fits.
package enum ExitStatus {
    package static let success: Int32 = 0
    /// `relay status` and `relay health`: the relay does not serve, or there is none. What a container's health check expects.
    package static let unhealthy: Int32 = 1
    /// EX_USAGE: the command line is wrong.
    package static let usage: Int32 = 64
    /// EX_UNAVAILABLE: something that the relay needs is taken or missing, such as its port.
    package static let unavailable: Int32 = 69
    /// EX_SOFTWARE: an error of the relay's own.
    package static let internalError: Int32 = 70
    /// EX_OSERR: a worker could not begin.
    package static let launchFailed: Int32 = 71
    /// EX_CONFIG: the configuration is wrong.
    package static let configuration: Int32 = 78
}
