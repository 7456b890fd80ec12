package redirect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// programs are tried in this order: the image's maker chose the first.
var programs = []string{"iptables", "iptables-nft", "iptables-legacy"}

// ruleAbsent is the status of iptables -C when there is no such rule.
const ruleAbsent = 1

// setIPTables is idempotent, though not atomic. The rule is the first one, so
// that no other decides before it.
func (p *Plan) setIPTables(ctx context.Context) error {
	if _, err := iptables(ctx, p.iptablesArgs("-C", "OUTPUT")...); err == nil {
		return nil
	}
	_, err := iptables(ctx, p.iptablesArgs("-I", "OUTPUT", "1")...)
	return err
}

// iptablesDiffers wants the rule to be the chain's first.
func (p *Plan) iptablesDiffers(ctx context.Context) error {
	out, err := iptables(ctx, iptablesList()...)
	if err != nil {
		return err
	}
	want := "-A OUTPUT " + strings.Join(p.iptablesRule(), " ")
	for line := range strings.Lines(out) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "-A ") {
			if line == want {
				return nil
			}
			break
		}
	}
	return errors.New("the first rule of OUTPUT in iptables' nat table is not the planned one")
}

// removeIPTables deletes the rule as often as it is there: two that ran at once
// may each have made one.
func (p *Plan) removeIPTables(ctx context.Context) error {
	for range 100 {
		_, err := iptables(ctx, p.iptablesArgs("-C", "OUTPUT")...)
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == ruleAbsent {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := iptables(ctx, p.iptablesArgs("-D", "OUTPUT")...); err != nil {
			return err
		}
	}
	return errors.New("iptables: the rule is there more than 100 times")
}

// iptables runs the program, without the sidecar's environment, in which the
// secret of App Service may be.
func iptables(ctx context.Context, args ...string) (string, error) {
	program, err := iptablesProgram()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "XTABLES_LOCKFILE=" + os.Getenv("XTABLES_LOCKFILE")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s: use --method nftables or address if you can",
			program, strings.Join(args, " "), err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	return stdout.String(), nil
}

func iptablesProgram() (string, error) {
	for _, name := range programs {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("there is no program %s here: svidecar's image has none; use --method nftables or address", strings.Join(programs, ", "))
}
