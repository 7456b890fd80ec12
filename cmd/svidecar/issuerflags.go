package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"
)

// issuerFlags are what only issuer has.
type issuerFlags struct {
	listen            string
	certFile, keyFile string
	export            string
	workload          workloadFlags
}

func (f *issuerFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.listen, "issuer-listen", "127.0.0.1:8002", "`address` that serves the two documents")
	fs.StringVar(&f.certFile, "tls-cert-file", "", "PEM `file` of the certificate chain for HTTPS; read again when it changes")
	fs.StringVar(&f.keyFile, "tls-key-file", "", "PEM `file` of the certificate's key")
	fs.StringVar(&f.export, "export", "", "write the documents below this `directory` for static hosting, and end")
	f.workload.register(fs)
}

// check refuses flags that would do nothing. The same settings in the environment
// are let be: it serves all commands.
func (f *issuerFlags) check(fs *pflag.FlagSet) error {
	idle := map[string]bool{
		"subject": f.workload.socket == "", "assertion-lifetime": f.workload.socket == "", "unsafe-unpublished-key": f.workload.socket == "",
		"issuer-listen": f.export != "", "rotate-every": f.export != "", "tls-cert-file": f.export != "", "workload-api": f.export != "",
	}
	var all []error
	fs.Visit(func(flag *pflag.Flag) {
		switch {
		case !idle[flag.Name]:
		case f.export != "":
			all = append(all, fmt.Errorf("--%s: does nothing with --export, which writes and ends: remove one of them", flag.Name))
		default:
			all = append(all, fmt.Errorf("--%s: is for --workload-api: add that, or remove it", flag.Name))
		}
	})
	return errors.Join(all...)
}
