// The page at `/`, for people who open the relay's address in a browser. It is the same for everybody and holds nothing
// about rooms, clients or load: whoever may read it may not know who talks here.

import COpenSSL

/// The status page: one document, without script or anything to load.
enum StatusPage {
    /// Nothing may be loaded, framed, sent or run; the one style sheet is allowed by its hash, so that not even markup
    /// smuggled into the page could bring another (CSP Level 3, 6.7.3.3).
    static let contentSecurityPolicy =
        "default-src 'none'; style-src 'sha256-\(styleHash())'; base-uri 'none'; form-action 'none'; "
        + "frame-ancestors 'none'"

    static let html = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <meta name="robots" content="noindex">
        <title>KarmaGate Bind relay</title>
        <style>\(style)</style>
        </head>
        <body>
        <main>
        <h1>KarmaGate Bind relay</h1>
        <p class="status">This relay is running.</p>
        <p>It passes messages between the members of a session. They are encrypted end to end: the relay forwards them
        and can read none. It keeps no messages, and a session is forgotten when its last member has left.</p>
        <h2>Connecting</h2>
        <p>Give the desktop client this server's address; the client does the rest. It opens a WebSocket at
        <code>/ws</code> with the session's <code>room</code> and a signed <code>token</code>, and the host also with
        the <code>pubkey</code> that the tokens are checked against.</p>
        <h2>Monitoring</h2>
        <p><a href="/health">/health</a> tells in JSON whether the relay serves: <code>ok</code>,
        <code>degraded</code> while a part of it is being restarted, or <code>unavailable</code>.</p>
        </main>
        </body>
        </html>

        """

    static let style = """

        :root { --paper: #fbfaf8; --ink: #22201d; --quiet: #6b655d; --line: #e2ddd5; --good: #1c7c47; }
        @media (prefers-color-scheme: dark) {
          :root { --paper: #191817; --ink: #ece8e2; --quiet: #a49d93; --line: #37332f; --good: #62c98f; }
        }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.6 system-ui, sans-serif; }
        main { max-width: 36rem; margin: 0 auto; padding: 4rem 1.5rem; }
        h1 { margin: 0 0 1rem; font-size: 1.75rem; line-height: 1.2; }
        h2 { margin: 2rem 0 0; padding-top: 1.5rem; border-top: 1px solid var(--line); font-size: 1.1rem; }
        p { margin: .5rem 0; }
        a { color: inherit; }
        code { font: .9em ui-monospace, monospace; color: var(--quiet); }
        .status { color: var(--good); font-weight: 600; }
        .status::before { content: "\\25CF"; margin-right: .5em; }

        """

    /// Of the text between <style> and </style>, exactly.
    private static func styleHash() -> String {
        let text = Array(style.utf8)
        var digest = [UInt8](repeating: 0, count: Int(SHA256_DIGEST_LENGTH))
        // Reads text.count bytes of `text`, writes SHA256_DIGEST_LENGTH into `digest`; keeps neither.
        _ = unsafe SHA256(text, text.count, &digest)
        return String(decoding: encodeBase64(digest), as: UTF8.self)
    }
}
