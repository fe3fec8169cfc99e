package check

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

const dir = "../kubernetes"

// manifests are all objects, decoded, by kind and name.
func manifests(t *testing.T) map[string]any {
	t.Helper()
	kustomization := struct {
		APIVersion, Kind string
		Resources        []string
		Images           []struct{ Name, NewTag string }
	}{}
	text, err := os.ReadFile(filepath.Join(dir, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &kustomization); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{"kustomization.yaml": true}
	for _, r := range kustomization.Resources {
		listed[r] = true
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	objects := map[string]any{}
	for _, file := range files {
		if !listed[filepath.Base(file)] {
			t.Errorf("kustomization.yaml leaves %s out", file)
		}
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(text, []byte("\n---\n")) {
			var meta struct {
				metav1.TypeMeta
				Metadata metav1.ObjectMeta `json:"metadata"`
			}
			if err := yaml.Unmarshal(doc, &meta); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			object := newObject(meta.APIVersion + " " + meta.Kind)
			if object == nil {
				t.Fatalf("%s: %s %s is not known here", file, meta.APIVersion, meta.Kind)
			}
			if err := yaml.UnmarshalStrict(doc, object); err != nil {
				t.Errorf("%s: %s %s: %v", file, meta.Kind, meta.Metadata.Name, err)
			}
			if meta.Kind != "Namespace" && meta.Metadata.Namespace != "madang" {
				t.Errorf("%s: %s %s is in namespace %q", file, meta.Kind, meta.Metadata.Name, meta.Metadata.Namespace)
			}
			objects[meta.Kind+" "+meta.Metadata.Name] = object
		}
	}
	return objects
}

func newObject(kind string) any {
	switch kind {
	case "v1 Namespace":
		return &corev1.Namespace{}
	case "v1 ConfigMap":
		return &corev1.ConfigMap{}
	case "v1 ServiceAccount":
		return &corev1.ServiceAccount{}
	case "v1 Service":
		return &corev1.Service{}
	case "apps/v1 Deployment":
		return &appsv1.Deployment{}
	case "autoscaling/v2 HorizontalPodAutoscaler":
		return &autoscalingv2.HorizontalPodAutoscaler{}
	case "policy/v1 PodDisruptionBudget":
		return &policyv1.PodDisruptionBudget{}
	case "networking.k8s.io/v1 NetworkPolicy":
		return &networkingv1.NetworkPolicy{}
	}
	return nil
}

func get[T any](t *testing.T, objects map[string]any, name string) *T {
	t.Helper()
	o, ok := objects[name].(*T)
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return o
}

func TestManifestsHangTogether(t *testing.T) {
	objects := manifests(t)
	var settings map[string]any
	config := get[corev1.ConfigMap](t, objects, "ConfigMap madang")
	if err := yaml.UnmarshalStrict([]byte(config.Data["madang.yaml"]), &settings); err != nil {
		t.Fatal(err)
	}
	stopping := duration(t, settings["drain-delay"]) + duration(t, settings["drain-timeout"])
	policy := get[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy madang")

	for _, name := range []string{"madang-api", "madang-gateway"} {
		t.Run(name, func(t *testing.T) {
			d := get[appsv1.Deployment](t, objects, "Deployment "+name)
			pod := d.Spec.Template
			if d.Spec.Replicas != nil {
				t.Error("replicas is set: each apply would undo the autoscaler's number")
			}
			selects(t, "Deployment", d.Spec.Selector, pod.Labels)
			selects(t, "PodDisruptionBudget", get[policyv1.PodDisruptionBudget](t, objects, "PodDisruptionBudget "+name).Spec.Selector, pod.Labels)
			selects(t, "NetworkPolicy", &policy.Spec.PodSelector, pod.Labels)
			if job := pod.Labels["app.kubernetes.io/name"]; job != name { // prometheus/kubernetes.yml
				t.Errorf("Prometheus calls the job %q: no alert or dashboard does", job)
			}
			service := get[corev1.Service](t, objects, "Service "+name)
			selects(t, "Service", &metav1.LabelSelector{MatchLabels: service.Spec.Selector}, pod.Labels)
			for _, c := range pod.Spec.TopologySpreadConstraints {
				selects(t, "spread", c.LabelSelector, pod.Labels)
			}
			scaler := get[autoscalingv2.HorizontalPodAutoscaler](t, objects, "HorizontalPodAutoscaler "+name)
			if ref := scaler.Spec.ScaleTargetRef; ref.Kind != "Deployment" || ref.Name != name || *scaler.Spec.MinReplicas < 2 {
				t.Errorf("the autoscaler is of %s %s with at least %d", ref.Kind, ref.Name, *scaler.Spec.MinReplicas)
			}
			if get[corev1.ServiceAccount](t, objects, "ServiceAccount "+pod.Spec.ServiceAccountName).Name == "" || *pod.Spec.AutomountServiceAccountToken {
				t.Error("the pod gets a token for the cluster's API, which it does not need")
			}

			container := pod.Spec.Containers[0]
			ports := map[string]int32{}
			for _, p := range container.Ports {
				ports[p.Name] = p.ContainerPort
			}
			for _, p := range service.Spec.Ports {
				if ports[p.TargetPort.StrVal] == 0 {
					t.Errorf("the service sends to port %q, which the container does not name", p.TargetPort.StrVal)
				}
			}
			probes := map[string]*corev1.Probe{"/readyz": container.ReadinessProbe, "/healthz": container.LivenessProbe}
			for path, probe := range probes {
				if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path || probe.HTTPGet.Port != intstr.FromString("admin") {
					t.Errorf("%s is not asked on the admin port: %+v", path, probe)
				}
			}
			if admin := fmt.Sprintf(":%d", ports["admin"]); settings["admin-addr"] != admin || pod.Annotations["prometheus.io/port"] != admin[1:] {
				t.Errorf("the admin port is %s, the setting %v, Prometheus is told %s", admin, settings["admin-addr"], pod.Annotations["prometheus.io/port"])
			}

			total := stopping
			if container.Lifecycle != nil && container.Lifecycle.PreStop != nil {
				total += time.Duration(container.Lifecycle.PreStop.Sleep.Seconds) * time.Second
			}
			if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace <= total {
				t.Errorf("the pod is killed after %v, and stopping takes %v", grace, total)
			}
			notReady := time.Duration(container.ReadinessProbe.PeriodSeconds*container.ReadinessProbe.FailureThreshold) * time.Second
			if delay := duration(t, settings["drain-delay"]); delay <= notReady {
				t.Errorf("the door closes after %v, and not being ready is noticed after %v", delay, notReady)
			}

			s, p := container.SecurityContext, pod.Spec.SecurityContext
			if !*p.RunAsNonRoot || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || s.Capabilities.Drop[0] != "ALL" || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
				t.Error("it is not as restricted as the namespace demands")
			}
			if container.Resources.Limits.Cpu() != nil && !container.Resources.Limits.Cpu().IsZero() {
				t.Error("it has a CPU limit")
			}
			volumes := map[string]bool{}
			for _, v := range pod.Spec.Volumes {
				volumes[v.Name] = true
				if v.Secret != nil && (p.FSGroup == nil || *p.FSGroup != *p.RunAsUser) && v.Secret.DefaultMode != nil && *v.Secret.DefaultMode&0o004 == 0 {
					t.Errorf("user %d cannot read secret %s: fsGroup is not it", *p.RunAsUser, v.Name)
				}
			}
			mounted := ""
			for _, m := range container.VolumeMounts {
				mounted += m.MountPath + "/ "
				if !volumes[m.Name] {
					t.Errorf("there is no volume %s to mount", m.Name)
				}
			}
			for _, arg := range container.Args {
				if strings.HasPrefix(arg, "/") && !strings.Contains(mounted, filepath.Dir(arg)+"/") {
					t.Errorf("%s is not in a mounted volume", arg)
				}
			}
		})
	}
}

func selects(t *testing.T, who string, selector *metav1.LabelSelector, labels map[string]string) {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	if s.Empty() || !s.Matches(set(labels)) {
		t.Errorf("%s selects %s, the pods have %v", who, s, labels)
	}
}

// set is labels.Set without its package's other imports.
type set map[string]string

func (s set) Has(label string) bool                       { _, ok := s[label]; return ok }
func (s set) Get(label string) string                     { return s[label] }
func (s set) Lookup(label string) (value string, ok bool) { value, ok = s[label]; return }

func duration(t *testing.T, v any) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(fmt.Sprint(v))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
