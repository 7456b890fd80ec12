package emulation_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/svidecar/svidecar/internal/emulation"
)

// TestAdmit: an app that Entra would not know by that id is not made up. Azure CLI
// before 2.73 asks by an object id as if it were a client id, and goes on only if refused.
func TestAdmit(t *testing.T) {
	cloud, err := emulation.Start(emulation.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cloud.Close)
	const further = "6b2d9f04-3c1e-4f7a-8d55-e0a9c4b7f231"
	for _, test := range []struct {
		name, id string
		added    bool
	}{
		{"the object id of an app", emulation.ObjectID, false},
		{"in capitals", strings.ToUpper(emulation.ObjectID), false},
		{"no GUID", "app", false},
		{"the client id that is there", strings.ToUpper(emulation.ClientID), false},
		{"a further client id", further, true},
	} {
		before := ids(cloud)
		cloud.Admit(test.id)
		want := before
		if test.added {
			want = slices.Sorted(slices.Values(append(slices.Clone(before), test.id)))
		}
		if diff := cmp.Diff(want, ids(cloud)); diff != "" {
			t.Errorf("Admit(%q), %s (-want +got):\n%s", test.id, test.name, diff)
		}
	}
}

func ids(cloud *emulation.Emulation) (all []string) {
	for _, a := range cloud.Entra.Apps() {
		all = append(all, a.ClientID)
	}
	slices.Sort(all)
	return all
}
