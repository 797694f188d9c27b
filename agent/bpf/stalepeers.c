//go:build ignore

// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only

// Sockets that are connected to services by UDP over IPv4.

#include "stalepeers.h"
