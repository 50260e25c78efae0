#include "ctlskeys.h"

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <string.h>

#define NAME "ctlskeys"

enum {
    HASH_BYTES_MAX = CTLSKEYS_SECRET_BYTES_MAX,
    BLOCK_BYTES_MAX = 128, // SHA-384's
    // Secrets are a hash long, and so is the context of a label; a shared secret is as long as its group's, at most 66 bytes of P-521 or
    // 80 of SecP384r1MLKEM1024; labels have 18 bytes at the most, their prefix 6.
    BYTES_MAX = 80,
    INFO_BYTES_MAX = 2 + 1 + 2 * BYTES_MAX + 1 + BYTES_MAX + 1, // HkdfLabel (RFC 8446, 7.1), and HKDF's counter
};

/// Bytes that were copied.
struct bytes {
    size_t count;
    unsigned char at[BYTES_MAX];
};

/// The provider's context: digests that are fetched once, which costs more than to use them.
struct digests {
    EVP_MD *sha256, *sha384;
};

/// One use of the algorithm: EVP_KDF_CTX_new(3) to EVP_KDF_CTX_free(3).
struct derivation {
    const struct digests *digests;
    EVP_MD_CTX *hashing;
    const EVP_MD *digest;
    size_t hash_bytes;
    int mode;
    struct bytes key, salt, prefix, label, data;
};

/// The secrets kept, by side.
static _Thread_local struct secret {
    size_t count;
    unsigned char at[HASH_BYTES_MAX];
} kept[2];

size_t ctlskeys_take(enum ctlskeys_side side, unsigned char *secret) {
    size_t count = kept[side].count;
    memcpy(secret, kept[side].at, count);
    OPENSSL_cleanse(&kept[side], sizeof kept[side]);
    return count;
}

// ---- The key schedule (RFC 2104, RFC 5869, RFC 8446) ----

static int hmac(
    EVP_MD_CTX *hashing, const EVP_MD *digest, const unsigned char *key, size_t key_bytes, const unsigned char *text,
    size_t text_bytes, unsigned char *mac) {
    unsigned char pad[BLOCK_BYTES_MAX], inner[HASH_BYTES_MAX];
    size_t block_bytes = (size_t)EVP_MD_get_block_size(digest), hash_bytes = (size_t)EVP_MD_get_size(digest);
    if (block_bytes > sizeof pad || hash_bytes > sizeof inner) return 0;
    if (key_bytes > block_bytes) return 0; // Would have to be hashed first; no key of TLS 1.3 is so long.
    for (size_t i = 0; i < block_bytes; i++) pad[i] = 0x36 ^ (i < key_bytes ? key[i] : 0);
    int made = EVP_DigestInit_ex(hashing, digest, NULL) == 1 && EVP_DigestUpdate(hashing, pad, block_bytes) == 1 &&
               EVP_DigestUpdate(hashing, text, text_bytes) == 1 && EVP_DigestFinal_ex(hashing, inner, NULL) == 1;
    for (size_t i = 0; i < block_bytes; i++) pad[i] ^= 0x36 ^ 0x5C;
    made = made && EVP_DigestInit_ex(hashing, NULL, NULL) == 1 && EVP_DigestUpdate(hashing, pad, block_bytes) == 1 &&
           EVP_DigestUpdate(hashing, inner, hash_bytes) == 1 && EVP_DigestFinal_ex(hashing, mac, NULL) == 1;
    OPENSSL_cleanse(pad, sizeof pad);
    OPENSSL_cleanse(inner, sizeof inner);
    return made;
}

int ctlskeys_expand(
    const EVP_MD *digest, const unsigned char *secret, size_t secret_bytes, const unsigned char *info, size_t info_bytes,
    unsigned char *output, size_t output_bytes) {
    unsigned char block[HASH_BYTES_MAX];
    if (output_bytes > (size_t)EVP_MD_get_size(digest)) return 0;
    EVP_MD_CTX *hashing = EVP_MD_CTX_new();
    int made = hashing != NULL && hmac(hashing, digest, secret, secret_bytes, info, info_bytes, block);
    if (made) memcpy(output, block, output_bytes);
    OPENSSL_cleanse(block, sizeof block);
    EVP_MD_CTX_free(hashing); // Wipes what it holds.
    return made;
}

/// HKDF-Expand-Label for at most one hash's bytes (RFC 8446, 7.1): HKDF-Expand is one HMAC then (RFC 5869, 2.3).
static int expand_label(
    struct derivation *d, const unsigned char *secret, size_t secret_bytes, const unsigned char *data, size_t data_bytes,
    unsigned char *output, size_t output_bytes) {
    unsigned char info[INFO_BYTES_MAX], block[HASH_BYTES_MAX];
    size_t count = 0;
    if (output_bytes > d->hash_bytes) return 0;
    info[count++] = 0;
    info[count++] = (unsigned char)output_bytes;
    info[count++] = (unsigned char)(d->prefix.count + d->label.count);
    memcpy(info + count, d->prefix.at, d->prefix.count);
    count += d->prefix.count;
    memcpy(info + count, d->label.at, d->label.count);
    count += d->label.count;
    info[count++] = (unsigned char)data_bytes;
    memcpy(info + count, data, data_bytes);
    count += data_bytes;
    info[count++] = 1;
    int made = hmac(d->hashing, d->digest, secret, secret_bytes, info, count, block);
    if (made) memcpy(output, block, output_bytes);
    OPENSSL_cleanse(block, sizeof block);
    return made;
}

/// One step down the schedule: HKDF-Extract(Derive-Secret(the secret before, label, ""), input). The first step has no secret
/// before it, and where there is no input, zeros are (RFC 8446, 7.1).
static int extract(struct derivation *d, unsigned char *output, size_t output_bytes) {
    static const unsigned char zeros[HASH_BYTES_MAX];
    unsigned char salt[HASH_BYTES_MAX] = {0}, empty[HASH_BYTES_MAX], secret[HASH_BYTES_MAX];
    if (output_bytes != d->hash_bytes) return 0;
    int made = 1;
    if (d->salt.count > 0)
        made = EVP_DigestInit_ex(d->hashing, d->digest, NULL) == 1 &&
               EVP_DigestFinal_ex(d->hashing, empty, NULL) == 1 &&
               expand_label(d, d->salt.at, d->salt.count, empty, d->hash_bytes, salt, d->hash_bytes);
    const unsigned char *input = d->key.count > 0 ? d->key.at : zeros;
    size_t input_bytes = d->key.count > 0 ? d->key.count : d->hash_bytes;
    made = made && hmac(d->hashing, d->digest, salt, d->hash_bytes, input, input_bytes, secret);
    if (made) memcpy(output, secret, output_bytes);
    OPENSSL_cleanse(salt, sizeof salt);
    OPENSSL_cleanse(secret, sizeof secret);
    return made;
}

static int is_label(const struct derivation *d, const char *label) {
    return d->label.count == strlen(label) && memcmp(d->label.at, label, d->label.count) == 0;
}

/// Keeps the output if it is one of the two secrets (RFC 8446, 7.1).
static void keep(const struct derivation *d, const unsigned char *output, size_t count) {
    enum ctlskeys_side side;
    if (is_label(d, "s ap traffic")) side = CTLSKEYS_SERVER;
    else if (is_label(d, "c ap traffic")) side = CTLSKEYS_CLIENT;
    else return;
    kept[side].count = count;
    memcpy(kept[side].at, output, count);
}

// ---- The algorithm (provider-kdf(7)) ----

static void derivation_free(void *context) {
    struct derivation *d = context;
    if (d == NULL) return;
    EVP_MD_CTX_free(d->hashing);
    OPENSSL_clear_free(d, sizeof *d);
}

static void *derivation_new(void *digests) {
    struct derivation *d = OPENSSL_zalloc(sizeof *d);
    if (d == NULL) return NULL;
    d->digests = digests;
    d->mode = -1;
    d->hashing = EVP_MD_CTX_new();
    if (d->hashing != NULL) return d;
    derivation_free(d);
    return NULL;
}

static void derivation_reset(void *context) {
    struct derivation *d = context;
    struct derivation fresh = {.digests = d->digests, .hashing = d->hashing, .mode = -1};
    OPENSSL_cleanse(d, sizeof *d);
    EVP_MD_CTX_reset(fresh.hashing);
    *d = fresh;
}

static int set_digest(struct derivation *d, const OSSL_PARAM *name) {
    if (name->data_type != OSSL_PARAM_UTF8_STRING || name->data == NULL) return 0;
    if (EVP_MD_is_a(d->digests->sha256, name->data)) d->digest = d->digests->sha256;
    else if (EVP_MD_is_a(d->digests->sha384, name->data)) d->digest = d->digests->sha384;
    else return 0;
    d->hash_bytes = (size_t)EVP_MD_get_size(d->digest);
    return d->hash_bytes <= HASH_BYTES_MAX;
}

/// As a number or by its name.
static int set_mode(struct derivation *d, const OSSL_PARAM *mode) {
    if (mode->data_type == OSSL_PARAM_UTF8_STRING && mode->data != NULL) {
        if (strcmp(mode->data, "EXTRACT_ONLY") == 0) d->mode = EVP_KDF_HKDF_MODE_EXTRACT_ONLY;
        else if (strcmp(mode->data, "EXPAND_ONLY") == 0) d->mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
        else return 0;
        return 1;
    }
    return OSSL_PARAM_get_int(mode, &d->mode) == 1 &&
           (d->mode == EVP_KDF_HKDF_MODE_EXTRACT_ONLY || d->mode == EVP_KDF_HKDF_MODE_EXPAND_ONLY);
}

static int copy(struct bytes *to, const OSSL_PARAM *from) {
    if (from->data_type != OSSL_PARAM_OCTET_STRING || from->data_size > sizeof to->at) return 0;
    if (from->data == NULL && from->data_size > 0) return 0;
    to->count = from->data_size;
    if (to->count > 0) memcpy(to->at, from->data, to->count);
    return 1;
}

static int derivation_set(void *context, const OSSL_PARAM *parameters) {
    struct derivation *d = context;
    for (const OSSL_PARAM *p = parameters; p != NULL && p->key != NULL; p++) {
        int taken = 1;
        if (strcmp(p->key, OSSL_KDF_PARAM_DIGEST) == 0) taken = set_digest(d, p);
        else if (strcmp(p->key, OSSL_KDF_PARAM_MODE) == 0) taken = set_mode(d, p);
        else if (strcmp(p->key, OSSL_KDF_PARAM_KEY) == 0) taken = copy(&d->key, p);
        else if (strcmp(p->key, OSSL_KDF_PARAM_SALT) == 0) taken = copy(&d->salt, p);
        else if (strcmp(p->key, OSSL_KDF_PARAM_PREFIX) == 0) taken = copy(&d->prefix, p);
        else if (strcmp(p->key, OSSL_KDF_PARAM_LABEL) == 0) taken = copy(&d->label, p);
        else if (strcmp(p->key, OSSL_KDF_PARAM_DATA) == 0) taken = copy(&d->data, p);
        if (!taken) return 0;
    }
    return 1;
}

static const OSSL_PARAM *derivation_settable(void *context, void *digests) {
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_utf8_string(OSSL_KDF_PARAM_DIGEST, NULL, 0),
        OSSL_PARAM_int(OSSL_KDF_PARAM_MODE, NULL),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_KEY, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_SALT, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_PREFIX, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_LABEL, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_KDF_PARAM_DATA, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)context, (void)digests;
    return settable;
}

static int derivation_derive(void *context, unsigned char *output, size_t count, const OSSL_PARAM *parameters) {
    struct derivation *d = context;
    if (!derivation_set(d, parameters) || d->digest == NULL) return 0;
    if (d->mode == EVP_KDF_HKDF_MODE_EXTRACT_ONLY) return extract(d, output, count);
    if (d->mode != EVP_KDF_HKDF_MODE_EXPAND_ONLY || d->key.count == 0) return 0;
    if (!expand_label(d, d->key.at, d->key.count, d->data.at, d->data.count, output, count)) return 0;
    keep(d, output, count);
    return 1;
}

static const OSSL_DISPATCH derivation_functions[] = {
    {OSSL_FUNC_KDF_NEWCTX, (void (*)(void))derivation_new},
    {OSSL_FUNC_KDF_FREECTX, (void (*)(void))derivation_free},
    {OSSL_FUNC_KDF_RESET, (void (*)(void))derivation_reset},
    {OSSL_FUNC_KDF_DERIVE, (void (*)(void))derivation_derive},
    {OSSL_FUNC_KDF_SETTABLE_CTX_PARAMS, (void (*)(void))derivation_settable},
    {OSSL_FUNC_KDF_SET_CTX_PARAMS, (void (*)(void))derivation_set},
    {0, NULL},
};

// ---- The provider (provider-base(7)) ----

static const OSSL_ALGORITHM *query(void *digests, int operation, int *no_cache) {
    static const OSSL_ALGORITHM algorithms[] = {
        {OSSL_KDF_NAME_TLS1_3_KDF, "provider=" NAME, derivation_functions, "TLS 1.3 key schedule whose secrets can be taken"},
        {NULL, NULL, NULL, NULL},
    };
    (void)digests;
    *no_cache = 0;
    return operation == OSSL_OP_KDF ? algorithms : NULL;
}

static void teardown(void *context) {
    struct digests *digests = context;
    EVP_MD_free(digests->sha256);
    EVP_MD_free(digests->sha384);
    OPENSSL_free(digests);
}

static const OSSL_DISPATCH provider_functions[] = {
    {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))query},
    {OSSL_FUNC_PROVIDER_TEARDOWN, (void (*)(void))teardown},
    {0, NULL},
};

static int start(
    const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **functions, void **context) {
    struct digests *digests = OPENSSL_zalloc(sizeof *digests);
    (void)handle, (void)core;
    if (digests == NULL) return 0;
    digests->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    digests->sha384 = EVP_MD_fetch(NULL, "SHA384", NULL);
    if (digests->sha256 == NULL || digests->sha384 == NULL) {
        teardown(digests);
        return 0;
    }
    *functions = provider_functions;
    *context = digests;
    return 1;
}

/// Whether two algorithms come from the same provider. Frees them.
static int are_of_one_provider(EVP_MD *left, EVP_MD *right) {
    int are = left != NULL && right != NULL && EVP_MD_get0_provider(left) == EVP_MD_get0_provider(right);
    EVP_MD_free(left);
    EVP_MD_free(right);
    return are;
}

/// Whether libssl will get this provider's algorithm, and all others from where OpenSSL's configuration has it get them.
static int is_preferred(void) {
    EVP_KDF *fetched = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_TLS1_3_KDF, CTLSKEYS_PROPERTIES);
    int is_ours = fetched != NULL && strcmp(OSSL_PROVIDER_get0_name(EVP_KDF_get0_provider(fetched)), NAME) == 0;
    EVP_KDF_free(fetched);
    return is_ours && are_of_one_provider(
                          EVP_MD_fetch(NULL, "SHA256", NULL), EVP_MD_fetch(NULL, "SHA256", CTLSKEYS_PROPERTIES));
}

int ctlskeys_load(void) {
    // The first fetch brings in the default provider, unless the configuration names others; to load it here would add it to those.
    EVP_MD *fetched = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (fetched == NULL) return 0;
    EVP_MD_free(fetched);
    return OSSL_PROVIDER_add_builtin(NULL, NAME, start) == 1 && OSSL_PROVIDER_try_load(NULL, NAME, 1) != NULL &&
           is_preferred();
}
