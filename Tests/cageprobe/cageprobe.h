#pragma once

/// A worker that an attacker has taken over, from its first moment on.
int false_worker(void);
