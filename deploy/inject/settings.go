package inject

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/svidecar/svidecar/internal/config"
)

const (
	minExpiration = 3600 // what kubelet and Entra agree on; below, the API server refuses 600 only
	maxExpiration = 86400
	maxUID        = 1<<31 - 1
	defaultUID    = 65531 // not 65532, which every distroless app is
	imdsPort      = 80
)

// complete fills in what is left out, and refuses what cannot be.
func (c Config) complete() (Config, error) {
	c.fill()
	var bad []error
	refuse := func(ok bool, format string, args ...any) {
		if !ok {
			bad = append(bad, fmt.Errorf("inject: Config."+format, args...))
		}
	}
	refuse(c.Image != "" && !strings.ContainsAny(c.Image, " \t\r\n"), "Image %q is no image: name the sidecar's", c.Image)
	refuse(slices.Contains([]string{"", "Always", "IfNotPresent", "Never"}, c.ImagePullPolicy), "ImagePullPolicy %q is none of Always, IfNotPresent, Never", c.ImagePullPolicy)
	refuse(slices.Contains(modes, c.Mode), "Mode %q is none of %s", c.Mode, modeNames())
	refuse(isPort(c.Port) && isPort(c.OpsPort) && c.Port != c.OpsPort, "Port %d and OpsPort %d are not two ports from 1 to 65535", c.Port, c.OpsPort)
	refuse(c.RunAsUser >= 1 && c.RunAsUser <= maxUID, "RunAsUser %d is not from 1 to %d", c.RunAsUser, maxUID)
	refuse(c.TokenExpiration >= minExpiration && c.TokenExpiration <= maxExpiration, "TokenExpiration %d is not from %d to %d", c.TokenExpiration, minExpiration, maxExpiration)
	refuse(c.SPIFFE.HostPath == "" || path.IsAbs(c.SPIFFE.HostPath), "SPIFFE.HostPath %q is no absolute path", c.SPIFFE.HostPath)
	refuse(path.Base(c.SPIFFE.SocketFile) == c.SPIFFE.SocketFile, "SPIFFE.SocketFile %q is not the name of a file", c.SPIFFE.SocketFile)
	if err := c.Resources.check(""); err != nil {
		bad = append(bad, fmt.Errorf("inject: Config.Resources: %w", err))
	}
	for _, s := range c.settings() {
		if err := checkSetting(s.name, s.value); err != nil {
			bad = append(bad, fmt.Errorf("inject: Config: %s: %w", s.name, err))
		}
	}
	return c, oneLine(bad)
}

func (c *Config) fill() {
	orElse(&c.Mode, ModeAuto)
	orElse(&c.Port, 8000)
	orElse(&c.OpsPort, 8001)
	orElse(&c.RunAsUser, defaultUID)
	orElse(&c.TokenExpiration, minExpiration)
	orElse(&c.Resources.CPURequest, "10m")
	orElse(&c.Resources.MemoryRequest, "32Mi")
	orElse(&c.Resources.CPULimit, none)
	orElse(&c.Resources.MemoryLimit, "128Mi")
	orElse(&c.SPIFFE.CSIDriver, "csi.spiffe.io")
	orElse(&c.SPIFFE.SocketFile, "spire-agent.sock")
	if c.NewSecret == nil {
		c.NewSecret = rand.Text
	}
}

func orElse[T comparable](at *T, value T) {
	var zero T
	if *at == zero {
		*at = value
	}
}

// settingValue is a setting of the sidecar, as internal/config names it.
type settingValue struct{ name, value string }

// settings are those of the installation that are the sidecar's own.
func (c Config) settings() []settingValue {
	var list []settingValue
	for _, s := range []settingValue{
		{"log-level", c.LogLevel}, {"cloud", c.Cloud}, {"authority-host", c.AuthorityHost}, {"tenant-id", c.TenantID},
	} {
		if s.value != "" {
			list = append(list, s)
		}
	}
	return list
}

// variable is the name of the environment variable of a setting.
func variable(setting string) string {
	return "SVIDECAR_" + strings.ToUpper(strings.ReplaceAll(setting, "-", "_"))
}

// checkSetting asks the sidecar's own parser, so that what is accepted here is
// accepted there.
func checkSetting(name, value string) error {
	_, err := config.LoadPart(nil, []string{variable(name) + "=" + value})
	if err == nil {
		return nil
	}
	text := err.Error()
	if _, rest, found := strings.Cut(text, variable(name)+"): "); found {
		text = rest
	}
	return errors.New(text)
}

func isPort(n int) bool { return n >= 1 && n <= 65535 }

var modes = []Mode{ModeAuto, ModeEnv, ModeRedirect, ModeAddress}

func modeNames() string {
	var names []string
	for _, m := range modes {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

// none leaves a resource out.
const none = "none"

var quantity = regexp.MustCompile(`^([0-9]{1,15}(?:\.[0-9]{1,9})?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)

// check wants four quantities, which errors name with the prefix, and no request above its limit, which the API
// server would refuse in words that name nothing of ours.
func (r Resources) check(prefix string) error {
	for _, q := range []string{r.CPURequest, r.MemoryRequest, r.CPULimit, r.MemoryLimit} {
		if amount(q) <= 0 {
			return fmt.Errorf("%q is neither a quantity above zero, such as 10m or 64Mi, nor none", q)
		}
	}
	for _, q := range []struct{ name, request, limit string }{{"cpu", r.CPURequest, r.CPULimit}, {"memory", r.MemoryRequest, r.MemoryLimit}} {
		if q.request != none && q.limit != none && amount(q.request) > amount(q.limit) {
			return fmt.Errorf("%[1]s-request %[2]s is above %[1]s-limit %[3]s: set both", prefix+q.name, q.request, q.limit)
		}
	}
	return nil
}

// amount is what a quantity stands for; it is zero for what is none.
func amount(q string) float64 {
	if q == none {
		return 1
	}
	m := quantity.FindStringSubmatch(q)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0
	}
	return n * map[string]float64{
		"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
		"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40,
	}[m[2]]
}
