package scheme

// StatusSubresource is the subresource of kinds whose status is written apart from the rest.
var StatusSubresource = Subresource{Name: "status", Verbs: []string{"patch", "update"}}

// ScaleSubresource is the subresource of kinds with a Scale.
var ScaleSubresource = Subresource{Name: "scale", Verbs: []string{"get", "patch", "update"}}

// StatusOnly is for kinds whose status is their only subresource.
var StatusOnly = []Subresource{StatusSubresource}
