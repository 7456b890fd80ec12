package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes this binary stand for two commands: svidecar itself, and an
// app that svidecar runs.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"svidecar": main, "app": app})
}

// app is what `dev -- app` runs, on every system alike. Its words are a protocol
// to ask by, "env" to print its environment, or "exit" and a status.
func app() {
	if err := runApp(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "app:", err)
		os.Exit(1)
	}
}

func runApp(word string, args []string) error {
	query := "?api-version=2018-02-01&resource=" + url.QueryEscape("https://vault.azure.net")
	switch word {
	case "imds":
		return appAsks(os.Getenv("AZURE_POD_IDENTITY_AUTHORITY_HOST")+"/metadata/identity/oauth2/token"+query, "Metadata", "true")
	case "appservice":
		return appAsks(os.Getenv("IDENTITY_ENDPOINT")+query, "X-IDENTITY-HEADER", os.Getenv("IDENTITY_HEADER"))
	case "env":
		for _, entry := range os.Environ() {
			fmt.Println(entry)
		}
		return nil
	case "exit":
		status, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(status)
	}
	return fmt.Errorf("unknown word %q", word)
}

// appAsks prints the reply.
func appAsks(target, header, value string) error {
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set(header, value)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	return nil
}
