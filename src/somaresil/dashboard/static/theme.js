// Before the first paint: the theme that was chosen here, else the system's.
document.documentElement.dataset.theme = (() => {
  try { return localStorage.getItem('somaresil.theme') || ''; } catch { return ''; }
})();
