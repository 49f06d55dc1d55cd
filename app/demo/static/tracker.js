// A stand-in for somebody's analytics: all it does is to say that it ran.
document.documentElement.dataset.ranExternal = "yes";
document.dispatchEvent(new CustomEvent("demo:ran"));
