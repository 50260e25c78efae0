// libcrypto as Swift can import it. Function-like macros get a `static inline` wrapper here.
#pragma once
#include <openssl/sha.h>
