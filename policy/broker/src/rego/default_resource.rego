package policy

# Asked only with a token of this broker, whose evidence was affirming.

import rego.v1

default allow := false

allow if {
	data.plugin == "resource"
	input.submods.cpu0["ear.status"] == "affirming"
}
