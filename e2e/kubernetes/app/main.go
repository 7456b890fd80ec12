// Command app is the workload of the cluster's tests: an app that knows managed identity by the Azure SDK and nothing
// else. It asks for a token again and again, each time in a process that has just started, and prints whose it is.
// It never prints the token, and never ends by itself unless -once is given; -drain says when it ends by SIGTERM.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// line is what is printed for each attempt.
type line struct {
	AppID    string `json:"appid,omitempty"`
	Tenant   string `json:"tid,omitempty"`
	Audience string `json:"aud,omitempty"`
	Error    string `json:"error,omitempty"`
}

// asking is how the app asks.
type asking struct {
	resource, client string
	timeout          time.Duration // of one attempt
	patient          bool          // leave retries as the SDK has them
}

// tally is left as the container's message when it is told to end: the pod's status keeps it when the log is gone.
type tally struct {
	Answered int `json:"answered"`
	Failed   int `json:"failed"`
	Drained  int `json:"drained"` // answered after the signal
}

func main() {
	var ask asking
	flag.StringVar(&ask.resource, "resource", "https://vault.azure.net", "what the tokens are for")
	flag.StringVar(&ask.client, "client-id", "", "identity to ask for; empty: the default one")
	flag.DurationVar(&ask.timeout, "timeout", 20*time.Second, "bound on one attempt")
	flag.BoolVar(&ask.patient, "retry", true, "let the SDK try again within an attempt")
	every := flag.Duration("every", time.Second, "pause between attempts")
	drain := flag.Duration("drain", 0, "how long to go on after SIGTERM, and then leave the tally as the container's message")
	once := flag.Bool("once", false, "end after one attempt, with status 1 if it failed")
	flag.Parse()
	if *once {
		got := ask.attempt()
		_ = json.NewEncoder(os.Stdout).Encode(got)
		if got.Error != "" {
			os.Exit(1)
		}
		return
	}
	if err := forever(*every, *drain); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

// forever asks until it is told to end, and for a while longer, as an app does that finishes its work.
func forever(every, drain time.Duration) error {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	var t tally
	var over <-chan time.Time
	for tick := time.NewTicker(every); ; {
		switch ok := freshly(); {
		case !ok:
			t.Failed++
		case over != nil:
			t.Drained++
			fallthrough
		default:
			t.Answered++
		}
		select {
		case <-told:
			over = time.After(drain)
		case <-over:
			text, err := json.Marshal(t)
			if err != nil {
				return err
			}
			return os.WriteFile("/dev/termination-log", text, 0o600)
		case <-tick.C:
		}
	}
}

// freshly makes one attempt in a process of its own. The SDK keeps tokens for as long as the process lives, whatever
// credential asks: this one would be answered from memory.
func freshly() (ok bool) {
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], "-once")...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run() == nil
}

// attempt asks once.
func (a asking) attempt() line {
	opts := &azidentity.ManagedIdentityCredentialOptions{}
	if !a.patient {
		opts.Retry.MaxRetries = -1
	}
	if a.client != "" {
		opts.ID = azidentity.ClientID(a.client)
	}
	cred, err := azidentity.NewManagedIdentityCredential(opts)
	if err != nil {
		return line{Error: err.Error()}
	}
	ctx, cancel := context.WithTimeout(context.Background(), a.timeout)
	defer cancel()
	token, err := cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{a.resource + "/.default"}})
	if err != nil {
		return line{Error: err.Error()}
	}
	l, err := read(token.Token)
	if err != nil {
		return line{Error: err.Error()}
	}
	return l
}

// read gives the claims of a token, unverified: whether it is a good one is for the emulator to say.
func read(token string) (l line, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return line{}, errors.New("the token is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return line{}, errors.New("the token's payload is not base64url")
	}
	return l, json.Unmarshal(payload, &l)
}
