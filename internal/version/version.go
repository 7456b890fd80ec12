// Package version owns what a program says of its own build. It never reads more than the build left in the binary.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Of is the release, as the linker set it, or else the module's version, or else what git knew. It is (devel) where
// none of these is known.
func Of(release string) string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

// Line is what the subcommand version prints: the program, its version, that of Go it was built with, and the system.
func Line(program, release string) string {
	return fmt.Sprintf("%s %s %s %s/%s", program, Of(release), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
