package exchange_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/svidecar/svidecar/exchange"
)

// BenchmarkTokenHit is what the cache costs a request: it must not depend on how
// many tokens are held.
func BenchmarkTokenHit(b *testing.B) {
	for _, entries := range []int{1, 2000} {
		b.Run(fmt.Sprintf("entries=%d", entries), func(b *testing.B) {
			s, keys := filled(b, entries)
			b.Run("serial", func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					hit(b, s, keys[i%len(keys)])
				}
			})
			b.Run("parallel", func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for i := 0; pb.Next(); i++ {
						hit(b, s, keys[i%len(keys)])
					}
				})
			})
			if n := s.Stats().Misses; n != uint64(entries) {
				b.Errorf("%d misses, want %d: hits were not what was measured", n, entries)
			}
		})
	}
}

func hit(b *testing.B, s *exchange.Source, key exchange.Key) {
	if _, err := s.Token(b.Context(), key); err != nil {
		b.Error(err)
	}
}

// filled is a source that holds a token for each of n keys.
func filled(b *testing.B, n int) (*exchange.Source, []exchange.Key) {
	b.Helper()
	entra := &authority{life: 24 * time.Hour}
	s, err := exchange.New(exchange.Config{Redeem: entra.redeem})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	keys := make([]exchange.Key, n)
	for i := range keys {
		keys[i] = exchange.Key{
			Tenant:   "5d0e7a8c-1b6f-4c3e-9a2d-7f4b8c6e1a30",
			ClientID: "3f6b1c9e-8d2a-4e57-b0c4-92a7e5d1f863",
			Scope:    fmt.Sprintf("https://r%04d.vault.azure.net/.default", i),
		}
		hit(b, s, keys[i])
	}
	return s, keys
}
