// libsodium: Ed25519, SipHash-2-4, base64url, random bytes, wiping.
#pragma once
#include <sodium.h>
