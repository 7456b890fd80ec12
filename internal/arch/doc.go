// Package arch owns the rules that the source tree itself keeps: who imports
// whom, what each binary links, how a package introduces itself, where a
// credential is revealed. It holds tests only and never ships in a binary.
//
// Every rule is a function from a tree to the complaints about it, so each is
// tried on invented sources that break it as well as on the real ones.
package arch
