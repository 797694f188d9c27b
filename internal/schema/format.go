package schema

import (
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	metav1 "github.com/xebec-project/xebec/proto/xebec/meta/v1"
)

// textFormat returns a message for each problem of a text; none for a valid text.
type textFormat func(text string) []string

var textFormats = map[metav1.Format]textFormat{
	metav1.Format_FORMAT_DNS_LABEL:      validation.IsDNS1123Label,
	metav1.Format_FORMAT_DNS_SUBDOMAIN:  validation.IsDNS1123Subdomain,
	metav1.Format_FORMAT_QUALIFIED_NAME: validation.IsQualifiedName,
	metav1.Format_FORMAT_LABEL_VALUE:    validation.IsValidLabelValue,
	metav1.Format_FORMAT_IP:             isIP,
	metav1.Format_FORMAT_CIDR:           isCIDR,
	metav1.Format_FORMAT_RELATIVE_PATH:  isRelativePath,
	metav1.Format_FORMAT_PORT_NAME:      validation.IsValidPortName,
	metav1.Format_FORMAT_CONFIG_KEY:     validation.IsConfigMapKey,
	metav1.Format_FORMAT_ENV_NAME:       validation.IsRelaxedEnvVarName,
	metav1.Format_FORMAT_HTTP_HEADER:    validation.IsHTTPHeaderName,
	metav1.Format_FORMAT_ANNOTATION_KEY: func(key string) []string { return validation.IsQualifiedName(strings.ToLower(key)) },
	metav1.Format_FORMAT_PATH_SEGMENT:   content.IsPathSegmentName,
}

var numberFormats = map[metav1.Format]func(int64) []string{
	metav1.Format_FORMAT_PORT:      func(n int64) []string { return validation.IsValidPortNum(int(n)) },
	metav1.Format_FORMAT_USER_ID:   validation.IsValidUserID,
	metav1.Format_FORMAT_GROUP_ID:  validation.IsValidGroupID,
	metav1.Format_FORMAT_FILE_MODE: isFileMode,
}

// isIP also refuses leading zeros and IPv4-mapped addresses, which programs interpret differently.
func isIP(text string) []string {
	return details(validation.IsValidIPForLegacyField(nil, text, true, nil))
}

// isCIDR also refuses addresses with bits beyond the prefix.
func isCIDR(text string) []string {
	return details(validation.IsValidCIDRForLegacyField(nil, text, true, nil))
}

func details(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Detail)
	}
	return out
}

// isRelativePath refuses absolute paths and paths with "..".
func isRelativePath(text string) []string {
	var out []string
	if path.IsAbs(text) {
		out = append(out, "must be a relative path")
	}
	if slices.Contains(strings.Split(text, "/"), "..") {
		out = append(out, "must not contain '..'")
	}
	return out
}

func isFileMode(n int64) []string {
	if n < 0 || n > 0o777 {
		return []string{"must be a number between 0 and 0777 (octal), both inclusive"}
	}
	return nil
}
