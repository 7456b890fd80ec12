//go:build !unix

package mint

import "os"

const openFlags = os.O_RDONLY
