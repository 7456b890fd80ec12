// Package chaos owns the tests in which everything between the sidecar and Entra
// breaks while many clients ask: the real `svidecar serve`, as a process, behind a
// TCP link that these tests disturb, against the emulated Entra, also a process.
// It never leaves loopback, never runs longer than it says, and takes no client's
// word for granted: each token is verified to be what that client asked for.
//
// The faults are those of the link (latency, little bandwidth, resets, half-open
// connections, a black hole, refusal), of the TLS peer (another authority's
// certificate), of name resolution, of Entra (429, 500, 503, refusals of healthy
// credentials, rubbish, silence, a process that is stopped), and of the token file
// (swapped as kubelet does it, truncated, removed). After each of them:
//
//   - no client got a token other than it asked for, or an expired one;
//   - no request was lost: none was answered other than with 200, and none took
//     longer than it may, while a valid token existed. One existed if any client
//     had got a token for the same identity and resource before the request was
//     sent, and that token still had more life than the sidecar's margin of 2 s
//     when the answer came;
//   - exchanges were bounded, for each second and each token;
//   - everything was served and renewed again within the time that the scenario
//     states;
//   - memory (on Linux) and goroutines went back to rest, and SIGTERM led to exit
//     status 0.
//
// TestChaos runs in a short form with all other tests. The full form, with 1,000
// clients and longer faults, runs under the build tag e2e, or if SVIDECAR_CHAOS is
// "full". TestSoak is one long run through all faults in turn: make soak.
//
// Two things cannot be done to one process from outside without being root, and
// are not done here. The wall clock cannot be set for it, since a static Go binary
// reads the clock without the C library that libfaketime stands in for: the tests
// of package exchange do that, in testing/synctest's bubbles. Its resolver cannot be
// replaced: a name that does not resolve is one that the proxy in HTTPS_PROXY, which
// resolves it instead, answers with 502.
//
// The link is our own. Shopify's toxiproxy brings a router, a logger and half a
// dozen more modules that nothing else here needs, and has no connection that dies
// without a word and stays dead.
package chaos
