package core

import (
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/xebec-project/xebec/internal/kinds/rules"
	corev1 "github.com/xebec-project/xebec/proto/xebec/core/v1"
)

// Limits of texts, in bytes.
const (
	maxDriverName    = 63
	maxISCSIPortal   = 64
	maxQuobyteTenant = 64
)

const mustBeValidFormat = "must be valid format"

// iscsiNames has the form of the names of iSCSI nodes, by how they begin.
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.[[:alnum:].-]+:[^,;*&$|\s]+$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

// takesMountOptions reports whether the annotation with mount options may stand at a volume.
func takesMountOptions(s *corev1.PersistentVolumeSource) bool {
	return s.GetGcePersistentDisk() != nil || s.GetAwsElasticBlockStore() != nil || s.GetGlusterfs() != nil || s.GetNfs() != nil ||
		s.GetRbd() != nil || s.GetQuobyte() != nil || s.GetIscsi() != nil || s.GetCinder() != nil || s.GetCephfs() != nil ||
		s.GetAzureFile() != nil || s.GetVsphereVolume() != nil || s.GetAzureDisk() != nil || s.GetPhotonPersistentDisk() != nil
}

// checkPersistentSource checks the source at p of the volume with the name.
func checkPersistentSource(c *rules.Checker, p *field.Path, name string, s *corev1.PersistentVolumeSource) {
	if h := s.GetHostPath(); h != nil {
		checkNoBacksteps(c, p.Child("hostPath", "path"), h.GetPath())
	}
	if l := s.GetLocal(); l != nil {
		checkNoBacksteps(c, p.Child("local", "path"), l.GetPath())
	}
	if n := s.GetNfs(); n != nil && !path.IsAbs(n.GetPath()) {
		c.Invalid(p.Child("nfs", "path"), n.GetPath(), "must be an absolute path")
	}
	if f := s.GetFlocker(); f != nil {
		checkFlocker(c, p.Child("flocker"), f)
	}
	if q := s.GetQuobyte(); q != nil {
		checkQuobyte(c, p.Child("quobyte"), q)
	}
	if i := s.GetIscsi(); i != nil {
		checkISCSI(c, p.Child("iscsi"), name, i)
	}
	if r := s.GetCinder().GetSecretRef(); r != nil {
		checkNamedInNamespace(c, p.Child("cinder", "secretRef"), r)
	}
	if r := s.GetStorageos().GetSecretRef(); r != nil {
		checkNamedInNamespace(c, p.Child("storageos", "secretRef"), r)
	}
	if f := s.GetFc(); f != nil {
		checkFibreChannel(c, p.Child("fc"), f)
	}
	if f := s.GetFlexVolume(); f != nil {
		checkFlexOptions(c, p.Child("flexVolume", "options"), f.GetOptions())
	}
	if a := s.GetAzureFile(); a != nil && a.SecretNamespace != nil && a.GetSecretNamespace() == "" {
		c.Required(p.Child("azureFile", "secretNamespace"), "")
	}
	if a := s.GetAzureDisk(); a != nil {
		checkAzureDisk(c, p.Child("azureDisk"), a)
	}
	if d := s.GetCsi(); d != nil {
		checkCSIVolume(c, p.Child("csi"), d)
	}
}

// checkNoBacksteps refuses paths that lead upwards.
func checkNoBacksteps(c *rules.Checker, p *field.Path, text string) {
	if slices.Contains(strings.Split(text, "/"), "..") {
		c.Invalid(p, text, "must not contain '..'")
	}
}

func checkFlocker(c *rules.Checker, p *field.Path, f *corev1.FlockerVolumeSource) {
	switch name, uuid := f.GetDatasetName() != "", f.GetDatasetUuid() != ""; {
	case name && uuid:
		c.Invalid(p, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	case !name && !uuid:
		c.Required(p, "one of datasetName and datasetUUID is required")
	}
	if strings.Contains(f.GetDatasetName(), "/") {
		c.Invalid(p.Child("datasetName"), f.GetDatasetName(), "must not contain '/'")
	}
}

func checkQuobyte(c *rules.Checker, p *field.Path, q *corev1.QuobyteVolumeSource) {
	if len(q.GetTenant()) > maxQuobyteTenant {
		c.Add(field.TooLong(p.Child("tenant"), "", maxQuobyteTenant))
	}
	if q.GetRegistry() == "" {
		return // reported as missing
	}
	for pair := range strings.SplitSeq(q.GetRegistry(), ",") {
		if _, _, err := net.SplitHostPort(pair); err != nil {
			c.Invalid(p.Child("registry"), q.GetRegistry(), "must be a host:port pair or multiple pairs separated by commas")
		}
	}
}

func checkISCSI(c *rules.Checker, p *field.Path, name string, i *corev1.ISCSIPersistentVolumeSource) {
	if i.GetIqn() != "" {
		checkISCSIName(c, p.Child("iqn"), i.GetIqn())
	}
	if i.InitiatorName != nil {
		checkISCSIName(c, p.Child("initiatorName"), i.GetInitiatorName())
		if len(name+":"+i.GetTargetPortal()) > maxISCSIPortal {
			c.Invalid(p.Child("targetPortal"), i.GetTargetPortal(),
				"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
		}
	}
	switch secret := i.GetSecretRef(); {
	case secret != nil && secret.GetName() == "":
		c.Required(p.Child("secretRef", "name"), "")
	case secret == nil && (i.GetChapAuthDiscovery() || i.GetChapAuthSession()):
		c.Required(p.Child("secretRef"), "")
	}
}

func checkISCSIName(c *rules.Checker, p *field.Path, name string) {
	if form := iscsiNames[name[:min(len(name), 3)]]; form == nil || !form.MatchString(name) {
		c.Invalid(p, name, mustBeValidFormat)
	}
}

// checkNamedInNamespace demands the name and the namespace of a Secret.
func checkNamedInNamespace(c *rules.Checker, p *field.Path, ref interface {
	GetName() string
	GetNamespace() string
}) {
	if ref.GetName() == "" {
		c.Required(p.Child("name"), "")
	}
	if ref.GetNamespace() == "" {
		c.Required(p.Child("namespace"), "")
	}
}

func checkFibreChannel(c *rules.Checker, p *field.Path, f *corev1.FCVolumeSource) {
	targets := p.Child("targetWWNs")
	switch wwns, wwids := len(f.GetTargetWwNs()) > 0, len(f.GetWwids()) > 0; {
	case wwns && wwids:
		c.Invalid(targets, f.GetTargetWwNs(), "targetWWNs and wwids can not be specified simultaneously")
	case !wwns && !wwids:
		c.Required(targets, "must specify either targetWWNs or wwids, but not both")
	}
	switch {
	case len(f.GetTargetWwNs()) == 0:
	case f.Lun == nil:
		c.Required(p.Child("lun"), "lun is required if targetWWNs is specified")
	case f.GetLun() < 0 || f.GetLun() > 255:
		c.Invalid(p.Child("lun"), f.GetLun(), validation.InclusiveRangeError(0, 255))
	}
}

func checkFlexOptions(c *rules.Checker, p *field.Path, options map[string]string) {
	for name := range options {
		prefix, _, _ := strings.Cut(name, "/")
		domain := "." + strings.ToLower(prefix)
		if strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io") {
			c.Invalid(p.Key(name), name, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func checkAzureDisk(c *rules.Checker, p *field.Path, a *corev1.AzureDiskVolumeSource) {
	switch uri := a.GetDiskUri(); {
	case a.GetKind() == "Managed" && !strings.HasPrefix(uri, "/subscriptions/"):
		c.Add(field.NotSupported(p.Child("diskURI"), uri,
			[]string{"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"}))
	case a.GetKind() != "Managed" && !strings.HasPrefix(uri, "https://"):
		c.Add(field.NotSupported(p.Child("diskURI"), uri,
			[]string{"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"}))
	}
}

func checkCSIVolume(c *rules.Checker, p *field.Path, d *corev1.CSIPersistentVolumeSource) {
	CheckDriverName(c, p.Child("driver"), d.GetDriver())
	for _, secret := range []struct {
		field string
		ref   *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", d.GetControllerPublishSecretRef()},
		{"controllerExpandSecretRef", d.GetControllerExpandSecretRef()},
		{"nodePublishSecretRef", d.GetNodePublishSecretRef()},
		{"nodeExpandSecretRef", d.GetNodeExpandSecretRef()},
	} {
		if secret.ref != nil {
			c.ObjectName(p.Child(secret.field, "name"), secret.ref.GetName())
			c.DNSLabel(p.Child(secret.field, "namespace"), secret.ref.GetNamespace())
		}
	}
}

// CheckDriverName checks the name of a CSI driver, unless it is empty: a DNS subdomain in any case.
func CheckDriverName(c *rules.Checker, p *field.Path, name string) {
	if name == "" {
		return // reported as missing
	}
	if len(name) > maxDriverName {
		c.Add(field.TooLong(p, "", maxDriverName))
	}
	c.Each(p, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))
}
