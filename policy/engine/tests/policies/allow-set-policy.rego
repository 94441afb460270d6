# Allows nothing but another policy in its place.

package agent_policy

default SetPolicyRequest := true
