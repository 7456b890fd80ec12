package inject

import "cmp"

// share is what a container of ours asks for. Where the pod has an amount for all
// of its containers, the API server refuses it if theirs come to more; so ours
// live on what the pod has, unless an annotation says otherwise.
func (m *mutation) share(w wish) Resources {
	r := w.resources
	for _, q := range []struct {
		name, request, limit string
		atRequest, atLimit   *string
	}{
		{"cpu", w.chosen.CPURequest, w.chosen.CPULimit, &r.CPURequest, &r.CPULimit},
		{"memory", w.chosen.MemoryRequest, w.chosen.MemoryLimit, &r.MemoryRequest, &r.MemoryLimit},
	} {
		if m.pod.get("spec", "resources", "requests", q.name) != nil || m.pod.get("spec", "resources", "limits", q.name) != nil {
			*q.atRequest, *q.atLimit = cmp.Or(q.request, none), cmp.Or(q.limit, none)
		}
	}
	return r
}

func (r Resources) object() object {
	requests, limits := object{}, object{}
	for _, q := range []struct {
		in        object
		key, text string
	}{{requests, "cpu", r.CPURequest}, {requests, "memory", r.MemoryRequest}, {limits, "cpu", r.CPULimit}, {limits, "memory", r.MemoryLimit}} {
		if q.text != none {
			q.in[q.key] = q.text
		}
	}
	all := object{}
	if len(requests) > 0 {
		all["requests"] = requests
	}
	if len(limits) > 0 {
		all["limits"] = limits
	}
	return all
}
