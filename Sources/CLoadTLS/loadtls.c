#include "CLoadTLS.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_BYTES = 16384 };

struct cloadtls_context {
    SSL_CTX *ssl;
    SSL_SESSION *ticket; // the last one that came, of any connection
};

struct cloadtls {
    SSL *ssl;
    int over; // CLOADTLS_ENDED or CLOADTLS_FAILED once a read has come to that, and every further one will
    int wants_write;
    int truncated;
    unsigned key_updates;
    char problem[256];
};

// ---- Contexts ----

// A copy: SSL_free(3) marks a session that was not shut down in both directions as not to be resumed.
static int keep_ticket(SSL *ssl, SSL_SESSION *session) {
    struct cloadtls_context *context = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    SSL_SESSION *copy = SSL_SESSION_dup(session);
    if (copy != NULL) {
        SSL_SESSION_free(context->ticket);
        context->ticket = copy;
    }
    return 0;
}

static void count_key_updates(
    int sent, int version, int type, const void *bytes, size_t count, SSL *ssl, void *argument) {
    (void)version, (void)ssl;
    struct cloadtls *connection = argument;
    if (sent || type != SSL3_RT_HANDSHAKE || count == 0) return;
    if (*(const unsigned char *)bytes == SSL3_MT_KEY_UPDATE) connection->key_updates++;
}

static void describe_error(char *problem, size_t capacity, const char *what) {
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
    snprintf(problem, capacity, "%s: %s", what, reason != NULL ? reason : "unknown error");
}

struct cloadtls_context *cloadtls_context_new(const char *authorities, int verify, char *problem, size_t capacity) {
    // libssl writes with write(2): a relay that has closed is an error to tell, not a signal to die of.
    signal(SIGPIPE, SIG_IGN);
    ERR_clear_error();
    static const unsigned char protocols[] = "\x08http/1.1";
    struct cloadtls_context *context = calloc(1, sizeof *context);
    if (context != NULL) context->ssl = SSL_CTX_new(TLS_client_method());
    if (context == NULL || context->ssl == NULL) {
        describe_error(problem, capacity, "libssl");
    } else if (SSL_CTX_set_min_proto_version(context->ssl, TLS1_3_VERSION) != 1 ||
               SSL_CTX_set_alpn_protos(context->ssl, protocols, sizeof protocols - 1) != 0) {
        describe_error(problem, capacity, "libssl");
    } else if (authorities != NULL && SSL_CTX_load_verify_locations(context->ssl, authorities, NULL) != 1) {
        describe_error(problem, capacity, "no certificates read");
    } else {
        if (authorities == NULL) SSL_CTX_set_default_verify_paths(context->ssl); // none there: nothing is trusted
        SSL_CTX_set_verify(context->ssl, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(
            context->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS); // 10,000 idle connections are held by one relay-load
        SSL_CTX_set_session_cache_mode(context->ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context->ssl, keep_ticket);
        SSL_CTX_set_app_data(context->ssl, context);
        return context;
    }
    cloadtls_context_free(context);
    return NULL;
}

void cloadtls_context_free(struct cloadtls_context *context) {
    if (context == NULL) return;
    SSL_SESSION_free(context->ticket);
    SSL_CTX_free(context->ssl);
    free(context);
}

int cloadtls_context_has_ticket(const struct cloadtls_context *context) { return context->ticket != NULL; }

// ---- Connections ----

// An address has no place in SNI (RFC 6066, 3), and is looked for among a certificate's addresses, not its names.
static int name_peer(SSL *ssl, const char *host) {
    ASN1_OCTET_STRING *address = a2i_IPADDRESS(host);
    if (address == NULL) return SSL_set_tlsext_host_name(ssl, host) == 1 && SSL_set1_host(ssl, host) == 1;
    ASN1_OCTET_STRING_free(address);
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
}

// A copy again: libssl marks a session that a handshake has begun with, and the next one could not use it.
static int offer_ticket(SSL *ssl, const SSL_SESSION *ticket) {
    SSL_SESSION *copy = SSL_SESSION_dup(ticket);
    int result = copy != NULL && SSL_set_session(ssl, copy) == 1;
    SSL_SESSION_free(copy);
    return result;
}

struct cloadtls *cloadtls_new(struct cloadtls_context *context, int descriptor, const char *host, int resume) {
    struct cloadtls *connection = calloc(1, sizeof *connection);
    if (connection == NULL) return NULL;
    connection->ssl = SSL_new(context->ssl);
    if (connection->ssl == NULL || !name_peer(connection->ssl, host) ||
        SSL_set_fd(connection->ssl, descriptor) != 1 ||
        (resume && context->ticket != NULL && !offer_ticket(connection->ssl, context->ticket))) {
        cloadtls_free(connection);
        return NULL;
    }
    SSL_set_connect_state(connection->ssl);
    SSL_set_msg_callback(connection->ssl, count_key_updates);
    SSL_set_msg_callback_arg(connection->ssl, connection);
    return connection;
}

void cloadtls_free(struct cloadtls *connection) {
    if (connection == NULL) return;
    SSL_free(connection->ssl);
    free(connection);
}

// ---- What went wrong ----

static int fail(struct cloadtls *connection, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(connection->problem, sizeof connection->problem, format, arguments);
    va_end(arguments);
    return CLOADTLS_FAILED;
}

static int fail_with_error_queue(struct cloadtls *connection) {
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    long verified = SSL_get_verify_result(connection->ssl);
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        connection->truncated = 1;
        return fail(connection, "the relay closed TCP without a TLS close_notify");
    }
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verified == X509_V_ERR_HOSTNAME_MISMATCH)
        return fail(connection, "the relay's certificate is not for this host: use a name that it is for, or --insecure");
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED && verified == X509_V_ERR_IP_ADDRESS_MISMATCH)
        return fail(
            connection, "the relay's certificate is not for this address: use a name that it is for, or --insecure");
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return fail(
            connection,
            "the relay's certificate is not trusted (%s): name its authority, or the certificate itself, "
            "with --ca FILE, or look at no certificate with --insecure",
            X509_verify_cert_error_string(verified));
    if (reason == SSL_R_WRONG_VERSION_NUMBER)
        return fail(connection, "there is no TLS at this port: is it ws:// and not wss://?");
    // RFC 8446, 6.2: alerts are numbered from 0, and libssl's reasons for alerts received from 1000.
    if (reason >= SSL_AD_REASON_OFFSET)
        return fail(
            connection, "the relay sent the TLS alert %d (%s)", reason - SSL_AD_REASON_OFFSET,
            SSL_alert_desc_string_long(reason - SSL_AD_REASON_OFFSET));
    const char *text = code != 0 ? ERR_reason_error_string(code) : NULL;
    return fail(connection, "TLS: %s", text != NULL ? text : "unknown error");
}

/// What libssl's `result`, which was none, comes to. `saved` is errno behind the call.
static int judge(struct cloadtls *connection, int result, int saved) {
    int error = SSL_get_error(connection->ssl, result);
    connection->wants_write = error == SSL_ERROR_WANT_WRITE;
    switch (error) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return CLOADTLS_LATER;
    case SSL_ERROR_ZERO_RETURN:
        return CLOADTLS_ENDED;
    case SSL_ERROR_SYSCALL:
        connection->truncated = 1;
        return fail(connection, "%s", saved != 0 ? strerror(saved) : "the connection ended");
    default:
        return fail_with_error_queue(connection);
    }
}

// ---- Bytes ----

int cloadtls_handshake(struct cloadtls *connection) {
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(connection->ssl);
    return result == 1 ? 0 : judge(connection, result, errno);
}

long cloadtls_read(struct cloadtls *connection, void *bytes, size_t capacity) {
    size_t total = 0;
    int problem = connection->over;
    while (problem == 0 && capacity - total >= RECORD_BYTES) {
        ERR_clear_error();
        errno = 0;
        int count = SSL_read(connection->ssl, (char *)bytes + total, RECORD_BYTES);
        if (count > 0) total += (size_t)count;
        else problem = judge(connection, count, errno);
    }
    if (problem != CLOADTLS_LATER) connection->over = problem;
    return total > 0 ? (long)total : problem;
}

long cloadtls_write(struct cloadtls *connection, const void *bytes, size_t count) {
    ERR_clear_error();
    errno = 0;
    int result = SSL_write(connection->ssl, bytes, count < RECORD_BYTES ? (int)count : RECORD_BYTES);
    return result > 0 ? result : judge(connection, result, errno);
}

long cloadtls_seal(struct cloadtls *connection, const void *bytes, size_t count, void *record, size_t capacity) {
    BIO *socket = SSL_get_wbio(connection->ssl);
    BIO *memory = BIO_new(BIO_s_mem());
    if (memory == NULL) return CLOADTLS_FAILED;
    BIO_up_ref(socket);
    SSL_set0_wbio(connection->ssl, memory);
    long written = cloadtls_write(connection, bytes, count);
    long sealed = written == (long)count ? BIO_read(memory, record, (int)capacity) : CLOADTLS_FAILED;
    SSL_set0_wbio(connection->ssl, socket);
    return sealed;
}

int cloadtls_update_keys(struct cloadtls *connection, int request) {
    ERR_clear_error();
    if (SSL_key_update(connection->ssl, request ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED) != 1)
        return fail_with_error_queue(connection);
    return cloadtls_handshake(connection);
}

void cloadtls_close_notify(struct cloadtls *connection) {
    ERR_clear_error();
    if (connection->over != CLOADTLS_FAILED && SSL_is_init_finished(connection->ssl)) SSL_shutdown(connection->ssl);
}

// ---- Questions ----

const char *cloadtls_problem(const struct cloadtls *connection) { return connection->problem; }
int cloadtls_wants_write(const struct cloadtls *connection) { return connection->wants_write; }
int cloadtls_is_truncated(const struct cloadtls *connection) { return connection->truncated; }
int cloadtls_is_resumed(const struct cloadtls *connection) { return SSL_session_reused(connection->ssl); }
unsigned cloadtls_key_updates(const struct cloadtls *connection) { return connection->key_updates; }
const char *cloadtls_version(const struct cloadtls *connection) { return SSL_get_version(connection->ssl); }

void cloadtls_protocol(const struct cloadtls *connection, char *name) {
    const unsigned char *bytes = NULL;
    unsigned int count = 0;
    SSL_get0_alpn_selected(connection->ssl, &bytes, &count);
    memcpy(name, bytes, count);
    name[count] = 0;
}
