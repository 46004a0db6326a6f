// What src/react.js uses of React, so that checking it needs no package.
export function createContext<T>(value: T): { Provider: any };
export function createElement(type: any, properties: any, ...children: any[]): any;
export function useCallback<T>(callback: T, dependencies: readonly any[]): T;
export function useContext(context: any): any;
export function useEffect(effect: () => void | (() => void), dependencies?: readonly any[]): void;
export function useMemo<T>(make: () => T, dependencies: readonly any[]): T;
export function useRef<T>(value: T): { current: T };
export function useState<T>(value: T | (() => T)): [T, (value: T | ((before: T) => T)) => void];
