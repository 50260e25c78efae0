// swift-tools-version: 6.2
import PackageDescription

/// Every target of ours: Swift 6 language mode, warnings are errors, strict memory safety.
/// `InternalImportsByDefault` keeps a module's imports out of its interface.
let sourceSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

/// Tests: the same, without strict memory safety, which the expansions of `#expect` trip over.
let testSettings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// `-z now`: lazy binding's resolver spills vector registers, and with them pieces of secrets, onto the stack.
let linkNow: [LinkerSetting] = [.unsafeFlags(["-Xlinker", "-z", "-Xlinker", "now"])]

let package = Package(
    name: "relay",
    products: [
        .executable(name: "relay", targets: ["supervisor"]),
        .executable(name: "relay-worker", targets: ["worker"]),
        .executable(name: "relay-load", targets: ["loadtest"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        // Tests only: independent clients.
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
    ],
    targets: [
        // C: what Swift can't import. Headers hold plain prototypes; `_GNU_SOURCE` stays in the .c file.
        .target(name: "CLinux", cSettings: [.define("_GNU_SOURCE")]),
        .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
        // The key schedule that libssl is given, as a provider of libcrypto's.
        .target(name: "CTLSKeys", linkerSettings: [.linkedLibrary("crypto")]),
        // The sandbox of workers. Linked with libseccomp, as in Debian's libseccomp-dev.
        .target(name: "CSandbox", cSettings: [.define("_GNU_SOURCE")], linkerSettings: [.linkedLibrary("seccomp")]),
        // The TLS client of relay-load, which shares nothing with the relay's TLS.
        .target(name: "CLoadTLS", linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),

        // What two processes must agree on.
        .target(
            name: "Shared",
            dependencies: ["CLinux", .product(name: "Logging", package: "swift-log")],
            swiftSettings: sourceSettings),

        // The data plane.
        .executableTarget(
            name: "worker",
            dependencies: [
                "Shared", "CLinux", "COpenSSL", "CSandbox", "CSodium", "CTLSKeys",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: sourceSettings,
            linkerSettings: linkNow),

        // Processes, restart, command line.
        .executableTarget(
            name: "supervisor",
            dependencies: [
                "Shared", "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: sourceSettings,
            linkerSettings: linkNow),

        // End-to-end check and load generator for users.
        .executableTarget(
            name: "loadtest",
            dependencies: [
                "CLinux", "CLoadTLS", "COpenSSL", "CSodium",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: sourceSettings),

        // For tests: what somebody would do who has taken a worker over.
        .executableTarget(
            name: "cageprobe", dependencies: ["CSandbox"], path: "Tests/cageprobe", cSettings: [.define("_GNU_SOURCE")]),

        // A folder per module. Integration tests start the `relay` that was built beside them.
        .testTarget(
            name: "SharedTests",
            dependencies: ["Shared", "CLinux", .product(name: "Logging", package: "swift-log")],
            swiftSettings: testSettings),
        .testTarget(
            name: "workerTests",
            dependencies: [
                "worker", "Shared", "CLinux", "CSodium", "COpenSSL", "CTLSKeys",
                .product(name: "Logging", package: "swift-log"),
            ],
            resources: [.copy("Vectors")],
            swiftSettings: testSettings),
        .testTarget(name: "loadtestTests", dependencies: ["loadtest"], swiftSettings: testSettings),
        .testTarget(
            name: "integrationTests",
            dependencies: [
                "CSodium",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
            ],
            swiftSettings: testSettings),
        .testTarget(
            name: "supervisorTests",
            dependencies: [
                "supervisor", "Shared", "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: testSettings),
    ]
)
