// Package entratest owns an emulator of Microsoft Entra's token endpoint for
// tests and for local development; it never talks to Entra, and never shares
// code with what it judges.
//
// It imports nothing of this module, and parses and verifies assertions by hand
// on the standard library, so a mistake in the code under test is not repeated
// here. Client assertions are verified for real: the emulator fetches the issuer's discovery document
// and key set over TLS, and checks form, header, federated credential,
// lifetime, key and signature, in Entra's order. Refusals carry Entra's own
// codes, texts, statuses and JSON ([Refusals] lists them).
//
// Where Entra is lenient or undocumented, the emulator is stricter:
//
//   - a header member other than alg, kid, typ, x5t and x5t#S256, a repeated
//     JSON member at any depth, base64url that is padded or not canonical, and
//     a time that is not a JSON integer are refused (50027);
//   - sub and exp are required like iss and aud (90014), and aud names exactly
//     one audience;
//   - no clock skew is allowed: an assertion is good from nbf and iat up to,
//     not including, exp (700024); Entra grants about five minutes;
//   - the discovery document must hold every member that OpenID Connect
//     Discovery requires of an issuer without an authorization endpoint, name
//     RS256, and repeat the issuer byte for byte; redirects are not followed;
//   - a key set that holds a private key, or that holds the kid twice, is
//     refused (501661, 700027);
//   - a request body that repeats a parameter (9000411) or asks for more than
//     one resource (70011) is refused.
//
// The emulator speaks HTTP/1.1 only, because several [Fault]s need the bare
// connection. All methods of [Server] are safe for concurrent use.
package entratest
