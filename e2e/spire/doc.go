// Package spire owns the tests of the real `svidecar` with SPIRE: a server, an
// agent and the OIDC discovery provider on one machine, whose JWT-SVIDs the
// emulated Entra verifies by what the provider publishes. It never downloads
// SPIRE, never leaves loopback, and never sleeps: it polls to a deadline.
//
// SPIRE_BIN_DIR names the folder that holds spire-server, spire-agent and
// oidc-discovery-provider, 1.11 or newer (`localauthority`). Without it TestSPIRE is
// skipped, and make e2e says so.
//
// What has been run: all scenarios against stand-ins, which are this test binary
// under the names of SPIRE's programs. They read the same configuration files, take
// the same commands and answer in the same JSON, so that a fault of the harness
// shows without SPIRE. What has not been run: TestSPIRE. No real SPIRE could be had
// where these tests were written; files, flags and output follow the documentation
// of SPIRE 1.14 and 1.15. Expect to mend the harness at its first meeting with the
// real programs, and then take this sentence out.
//
// The provider listens on a unix socket. In front of it stands a TLS server of the
// emulated CA, as in production some proxy does; that takes an empty
// authorization_endpoint out of the discovery document, which SPIRE writes in some
// versions and Entra refuses (AADSTS90061).
package spire
